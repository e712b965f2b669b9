//! `trainer completions` and `trainer man`: generates shell completions and manual pages from the definition of the command line.

use super::Cli;
use super::out::{Out, no_output};
use crate::error::Error;
use crate::output;
use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// Shell to print the completions for
    shell: Shell,
}

#[derive(Clone, Debug, clap::Args)]
pub struct ManArgs {
    /// Folder for the pages: trainer.1, and one page per subcommand
    #[arg(long, value_name = "DIR", value_parser = PathBufValueParser::new().try_map(no_output))]
    out: PathBuf,
}

pub fn completions(args: &CompletionsArgs) -> Result<(), Error> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    write!(Out, "{}", String::from_utf8_lossy(&script))
}

pub fn man(args: &ManArgs) -> Result<(), Error> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    render(&command, &mut pages);
    let folder = &args.out;
    let pages: Vec<_> = pages
        .iter()
        .map(|(name, page)| (folder.join(name), page))
        .collect();
    pages
        .iter()
        .try_for_each(|(path, _)| output::check_new(path))?;
    let _folder = output::Folder::create(folder)?;
    for (path, page) in &pages {
        output::write_new(path, page)?;
    }
    writeln!(Out, "wrote {} pages to {}", pages.len(), folder.display())?;
    Ok(())
}

/// Renders the manual pages of a command and of all its subcommands, with their file names.
fn render(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) {
    let (man, mut page) = (Man::new(command.clone()), Vec::new());
    man.render(&mut page).expect("memory takes every byte");
    pages.push((man.get_filename(), page));
    for below in command.get_subcommands() {
        render(below, pages);
    }
}
