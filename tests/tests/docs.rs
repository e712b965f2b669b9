//! Checks the documentation against the repository: every link has a target, every file that is named exists, every page of the
//! book is in its table of contents, and the program accepts every command.

use clap::Parser;
use clap::error::ErrorKind;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser as Markdown, Tag, TagEnd};
use std::path::{Path, PathBuf};
use trainer::commands::Cli;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns every Markdown file of the repository.
fn pages() -> Vec<PathBuf> {
    fn visit(folder: &Path, pages: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap_or_default();
            // Besides what the build writes, the folders at the top in which the book lets readers work.
            let is_top = folder == root();
            let other = ["target", "book", "runs"].contains(&name)
                || is_top && ["mine", "certificates"].contains(&name);
            if path.is_dir() && !other && !name.starts_with('.') {
                visit(&path, pages);
            } else if name.ends_with(".md") {
                pages.push(path);
            }
        }
    }
    let mut pages = Vec::new();
    visit(&root(), &mut pages);
    pages
}

fn read(page: &Path) -> String {
    std::fs::read_to_string(page).unwrap()
}

fn events(text: &str) -> impl Iterator<Item = Event<'_>> {
    Markdown::new_ext(text, Options::ENABLE_TABLES)
}

/// Returns the anchors of a page's headings, as GitHub and mdBook generate them.
fn anchors(text: &str) -> Vec<String> {
    let (mut anchors, mut heading) = (Vec::new(), None);
    for event in events(text) {
        match (event, &mut heading) {
            (Event::Start(Tag::Heading { .. }), _) => heading = Some(String::new()),
            (Event::End(TagEnd::Heading(_)), Some(_)) => anchors.extend(heading.take()),
            (Event::Text(text) | Event::Code(text), Some(anchor)) => {
                let kept = text
                    .chars()
                    .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
                anchor.extend(
                    kept.map(|c| if c == ' ' { '-' } else { c })
                        .flat_map(char::to_lowercase),
                );
            }
            _ => {}
        }
    }
    anchors
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let (mut links, mut broken) = (0, Vec::new());
    for page in pages() {
        let text = read(&page);
        for event in events(&text) {
            let (Event::Start(Tag::Link { dest_url: link, .. })
            | Event::Start(Tag::Image { dest_url: link, .. })) = event
            else {
                continue;
            };
            if link.contains("://") {
                continue;
            }
            links += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => page.clone(),
                _ => page.with_file_name("").join(file),
            };
            let found = target.exists()
                && (anchor.is_empty() || anchors(&read(&target)).iter().any(|a| a == anchor));
            if !found {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(links > 50, "{links} links: are the pages still found?");
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Checks names with a folder and an extension, such as `tests/support/src/oracle.rs`. They are relative to the folder of the
/// page or to a folder above it.
#[test]
fn every_file_that_is_named_exists() {
    const ENDINGS: [&str; 9] = ["rs", "md", "toml", "sh", "py", "cu", "ptx", "x", "gz"];
    let (mut names, mut missing) = (0, Vec::new());
    for page in pages() {
        let text = read(&page);
        for event in events(&text) {
            let Event::Code(name) = event else { continue };
            let is_path = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
            let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
            let placeholder = name.contains("NAME") || name.starts_with("runs/");
            if !name.contains('/')
                || !name.chars().all(is_path)
                || !ENDINGS.contains(&ending)
                || placeholder
            {
                continue;
            }
            names += 1;
            if !page.ancestors().any(|folder| folder.join(&*name).exists()) {
                missing.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(names > 20, "{names} names: are the pages still found?");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_page_of_the_book_is_in_its_table() {
    let summary = read(&root().join("docs/src/SUMMARY.md"));
    for page in files(&root().join("docs/src"), "md") {
        let listed = page == "SUMMARY.md" || summary.contains(&format!("({page})"));
        assert!(listed, "{page}");
    }
}

/// `docs/pictures.py` draws the pictures, and `ci.sh` checks that they are up to date.
#[test]
fn every_picture_of_the_book_is_shown() {
    let book = root().join("docs/src");
    let text: String = files(&book, "md")
        .iter()
        .map(|page| read(&book.join(page)))
        .collect();
    let pictures = files(&book.join("pictures"), "svg");
    assert!(pictures.len() >= 5, "{pictures:?}");
    for picture in pictures {
        assert!(text.contains(&format!("(pictures/{picture})")), "{picture}");
    }
}

/// Returns the names of the files in a folder with this extension.
fn files(folder: &Path, extension: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == extension))
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect()
}

/// Returns the arguments if the line calls the trainer.
fn arguments(line: &str) -> Option<&str> {
    let end = [" # ", " | ", " > ", " && ", "; "]
        .iter()
        .filter_map(|mark| line.find(mark))
        .min();
    let line = line[..end.unwrap_or(line.len())].trim();
    match line.strip_prefix("cargo run ") {
        Some(run) if run.contains("-p trainer") && !run.contains("--example") => Some(
            run.split_once(" -- ")
                .map_or("", |(_, arguments)| arguments),
        ),
        _ => line
            .strip_prefix("trainer")
            .filter(|rest| rest.is_empty() || rest.starts_with(' ')),
    }
}

/// Checks every line of shell blocks, and the lines after a `$` in console blocks.
#[test]
fn every_command_is_one_that_the_trainer_takes() {
    let (mut commands, mut refused) = (0, Vec::new());
    for page in pages() {
        let text = read(&page);
        let mut prompt = None;
        for event in events(&text) {
            match event {
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                    prompt = match &*language {
                        "sh" => Some(""),
                        "console" => Some("$ "),
                        _ => None,
                    };
                }
                Event::End(TagEnd::CodeBlock) => prompt = None,
                Event::Text(block) => {
                    let Some(prompt) = prompt else { continue };
                    let block = block.replace("\\\n", " ");
                    let lines = block.lines().filter_map(|line| line.strip_prefix(prompt));
                    for arguments in lines.filter_map(arguments) {
                        commands += 1;
                        let words = ["trainer"].into_iter().chain(arguments.split_whitespace());
                        match Cli::try_parse_from(words) {
                            Err(error) if error.kind() != ErrorKind::DisplayHelp => {
                                refused.push(format!("{}: {arguments}: {error}", page.display()));
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }
    assert!(
        commands > 20,
        "{commands} commands: are the pages still found?"
    );
    assert!(refused.is_empty(), "{refused:#?}");
}

/// Pages that state the required version of Rust must name the version in `Cargo.toml`, with which `ci.sh` runs the lints.
#[test]
fn the_oldest_rust_is_the_one_that_is_tested() {
    let manifest = read(&root().join("Cargo.toml"));
    let version = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "))
        .expect("the workspace names one")
        .trim_matches('"');
    let mut named = 0;
    for page in pages() {
        let text = read(&page);
        for (at, _) in text.match_indices(" or later") {
            let before = &text[..at];
            let Some((words, found)) = before.rsplit_once(' ') else {
                continue;
            };
            if words.ends_with("Rust") {
                assert_eq!(found, version, "{}", page.display());
                named += 1;
            }
        }
    }
    assert!(named >= 2, "the front page and the tutorial name it");
}

/// Returns the certificates of real boards, by the names of their files without extension.
fn certificates() -> Vec<String> {
    let entries = std::fs::read_dir(root().join("firmware/silicon")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn every_certificate_of_silicon_is_sound() {
    for name in certificates() {
        let path = root().join(format!("firmware/silicon/{name}.json"));
        let words = ["trainer", "device", "certify", "--check"];
        let words = words.into_iter().chain([path.to_str().unwrap()]);
        trainer::commands::run(Cli::try_parse_from(words).unwrap()).unwrap();
        let certificate = trainer::device::certificate::Certificate::load(&path).unwrap();
        assert!(certificate.medium.is_silicon(), "{name} is a rehearsal");
    }
}

/// The column `run on silicon` in the table of boards must agree with the certificates. `LENET_REWRITE=1` rewrites the column.
#[test]
fn the_boards_that_ran_on_silicon_have_a_certificate() {
    let page = root().join("firmware/boards/README.md");
    let certificates = certificates();
    let text = read(&page);
    let mut rewritten = String::new();
    for line in text.lines() {
        let board = line
            .strip_prefix("| `")
            .and_then(|rest| rest.split_once('`'))
            .map(|(board, _)| board);
        let row = line
            .trim_end_matches(" |")
            .rsplit_once("| ")
            .filter(|(_, cell)| *cell == "not yet" || cell.contains("../silicon/"));
        match (board, row) {
            (Some(board), Some((others, _))) => {
                // Find the newest certificate of exactly this board: its name must be followed by a date only.
                let newest = certificates.iter().rev().find_map(|name| {
                    let date = name.strip_prefix(board)?.strip_prefix('-')?;
                    let is_date = date.chars().all(|c| c.is_ascii_digit() || c == '-');
                    is_date.then(|| format!("[{date}](../silicon/{name}.md)"))
                });
                let cell = newest.unwrap_or("not yet".to_owned());
                rewritten += &format!("{others}| {cell} |\n");
            }
            _ => rewritten += &format!("{line}\n"),
        }
    }
    if std::env::var_os("LENET_REWRITE").is_some() {
        std::fs::write(&page, &rewritten).unwrap();
    } else {
        assert_eq!(text, rewritten, "LENET_REWRITE=1 rewrites the table");
    }
    let rows = text.matches("| not yet |").count() + text.matches("](../silicon/").count();
    assert!(rows >= 6, "the table has the real boards");
    // README.md states the same in words.
    let front = read(&root().join("README.md"));
    assert_eq!(
        front.contains("**Nothing here has run on silicon yet.**"),
        certificates.is_empty(),
        "the front page and firmware/silicon"
    );
}

/// One test measures the instruction counts and compares them with a table; the pages quote this table.
#[test]
fn instruction_counts_are_those_of_the_table() {
    let table = read(&root().join("tests/tests/firmware-instructions.txt"));
    let counts: Vec<String> = table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (_, count) = line.split_once(' ').expect("a name and a count");
            let count: u32 = count.parse().expect("a count");
            match count {
                0..1_000 => format!("{count}"),
                1_000.. => format!("{},{:03}", count / 1_000, count % 1_000),
            }
        })
        .collect();
    assert_eq!(counts.len(), 6, "{counts:?}");
    for page in ["README.md", "firmware/RESULTS.md"] {
        let text = read(&root().join(page));
        for count in &counts {
            assert!(text.contains(count), "{page} does not have {count}");
        }
    }
}
