//! A safe interface to one device: buffers, copies, and one function per kernel of step.cu.
//!
//! Each function asserts the lengths of its buffers before it launches the kernel. Every error names the failed operation, with
//! the kernel or the number of bytes.

use super::driver::failed;
use super::layout::{COEFFICIENTS, EPOCH_WORDS, Layout, SHARED_BYTES, THREADS};
use super::ptx::Kernels;
use crate::adam::Coefficients;
use crate::backend::Error;
use crate::dataset::{Augment, Order, ROUNDS};
use cudarc::driver::sys::{CUdevice_attribute, CUevent_flags, CUfunction_attribute_enum};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaSlice, CudaStream, DeviceRepr, LaunchConfig,
    PushKernelArg, ValidAsZeroBits,
};
use cudarc::nvrtc::Ptx;
use std::ops::Range;
use std::sync::Arc;

/// A buffer on the device that tells a graph which part of an epoch to process: the order of the images, the position at which the
/// part begins, and the augmentation. All parts of the same length share one; see [`Device::set_part`].
pub struct Part {
    /// The struct `Epoch` of step.cu.
    words: CudaSlice<u32>,
    /// The number of images in an epoch.
    images: usize,
    /// The number of images in a part.
    len: usize,
}

/// A device: its stream, the kernels loaded into it, and two events for timing.
pub struct Device {
    pub stream: Arc<CudaStream>,
    /// The sizes that the kernels were compiled for.
    pub layout: Layout,
    /// Recorded before and after training, to measure its time.
    pub epoch_events: [CudaEvent; 2],
    logits: CudaFunction,
    gradients: CudaFunction,
    update: CudaFunction,
    sum_gradients: CudaFunction,
    adam: CudaFunction,
    average: CudaFunction,
}

impl Device {
    /// Loads the kernels into the device of `context`. `device` is its name, for the error if the network is too large for it.
    pub fn new(context: &Arc<CudaContext>, device: &str, kernels: &Kernels) -> Result<Self, Error> {
        let layout = kernels.layout().clone();
        let most = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let most = context.attribute(most);
        let most = most.map_err(failed("ask for the device's shared memory"))?;
        let needed = layout.gradients_bytes();
        if needed > most as usize {
            return Err(Error::Cuda {
                cause: format!(
                    "the network {} is too large for the CUDA kernels: a block needs {needed} bytes of shared memory, and \
                     {device} has {most}",
                    layout.name()
                ),
                remedy: "Train with --device cpu, or make the layers before the last smaller",
            });
        }
        let module = context
            .load_module(Ptx::from_src(kernels.ptx()))
            .map_err(failed("load the kernels"))?;
        let load = |name: &str| {
            let found = module.load_function(name);
            found.map_err(failed(format!("find the kernel {name}")))
        };
        let load_with = |name: &str, bytes: usize| -> Result<CudaFunction, Error> {
            let kernel = load(name)?;
            if bytes > SHARED_BYTES {
                let most =
                    CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                let set = kernel.set_attribute(most, bytes as i32);
                set.map_err(failed(format!(
                    "let the kernel {name} have {bytes} bytes of shared memory"
                )))?;
            }
            Ok(kernel)
        };
        let event = || {
            let event = context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
            event.map_err(failed("make an event"))
        };
        Ok(Self {
            epoch_events: [event()?, event()?],
            // A stream of its own, because the default one cannot be captured.
            stream: context.new_stream().map_err(failed("make a stream"))?,
            logits: load_with("logits", layout.logits_bytes())?,
            gradients: load_with("gradients", needed)?,
            update: load("update")?,
            sum_gradients: load("sum_gradients")?,
            adam: load("adam")?,
            average: load("average")?,
            layout,
        })
    }

    /// Allocates a buffer of `len` zeros.
    pub fn alloc<T: DeviceRepr + ValidAsZeroBits>(
        &self,
        what: &str,
        len: usize,
    ) -> Result<CudaSlice<T>, Error> {
        let bytes = len * size_of::<T>();
        self.stream
            .alloc_zeros(len)
            .map_err(failed(format!("allocate {bytes} bytes for the {what}")))
    }

    /// Copies `values` into a new buffer on the device.
    pub fn upload<T: DeviceRepr>(&self, what: &str, values: &[T]) -> Result<CudaSlice<T>, Error> {
        let bytes = size_of_val(values);
        self.stream.clone_htod(values).map_err(failed(format!(
            "copy the {what} to the device, {bytes} bytes"
        )))
    }

    /// Copies `from` into an existing buffer on the device.
    pub fn write<T: DeviceRepr>(
        &self,
        what: &str,
        from: &[T],
        to: &mut CudaSlice<T>,
    ) -> Result<(), Error> {
        let bytes = size_of_val(from);
        self.stream.memcpy_htod(from, to).map_err(failed(format!(
            "copy the {what} to the device, {bytes} bytes"
        )))
    }

    /// Copies a buffer to the host. The copy is complete after [`finish`](Self::finish).
    pub fn read<T: DeviceRepr>(&self, what: &str, from: &CudaSlice<T>) -> Result<Vec<T>, Error> {
        let bytes = from.num_bytes();
        self.stream.clone_dtoh(from).map_err(failed(format!(
            "copy the {what} from the device, {bytes} bytes"
        )))
    }

    /// Waits until the device has done all work in the stream. `what` names that work in an error.
    pub fn finish(&self, what: &str) -> Result<(), Error> {
        self.stream
            .synchronize()
            .map_err(failed(format!("finish {what}")))
    }

    /// Launches the kernel `logits`: the logits of `count` images, `(count, C, H, W)`, into `out`, `(count, CLASSES)`.
    pub fn logits(
        &self,
        images: &CudaSlice<u8>,
        count: usize,
        params: &CudaSlice<f32>,
        out: &mut CudaSlice<f32>,
    ) -> Result<(), Error> {
        let layout = &self.layout;
        assert!(images.len() == count * layout.image_len());
        assert!(out.len() == count * layout.classes() && params.len() == layout.params());
        let images_arg = count as u32;
        let mut launch = self.stream.launch_builder(&self.logits);
        launch.arg(images).arg(&images_arg).arg(params).arg(out);
        // SAFETY: the arguments match the kernel's parameters. It reads `count` images and all parameters, and writes `count` rows
        // of CLASSES logits. The assertions above check that the buffers have these lengths.
        unsafe {
            launch.launch(blocks(
                count.div_ceil(layout.group()),
                layout.logits_bytes(),
            ))
        }
        .map_err(failed("launch the kernel logits"))?;
        Ok(())
    }

    /// Allocates a [`Part`] for parts of `len` images of an epoch of `images` images. It begins at position 0.
    pub fn part(&self, images: usize, len: usize) -> Result<Part, Error> {
        assert!(len <= images && u32::try_from(images).is_ok());
        Ok(Part {
            words: self.alloc("order", EPOCH_WORDS)?,
            images,
            len,
        })
    }

    /// Sets the order of the epoch, the position `first` at which the part begins, and the augmentation.
    pub fn set_part(
        &self,
        part: &mut Part,
        order: &Order,
        first: usize,
        augment: Option<&Augment>,
    ) -> Result<(), Error> {
        assert!(order.is_of(part.images) && first + part.len <= part.images);
        self.write(
            "order",
            &epoch_words(order, first, augment),
            &mut part.words,
        )
    }

    /// Launches the kernel `gradients`: the forward and backward pass of the images at `positions` of the part. The gradients are
    /// those of `scale` times the sum of the losses. Launches nothing if there are no positions.
    pub fn gradients(
        &self,
        (images, labels): (&CudaSlice<u8>, &CudaSlice<u8>),
        (part, positions, scale): (&Part, Range<usize>, f32),
        params: &CudaSlice<f32>,
        (loss, correct): (&mut CudaSlice<f32>, &mut CudaSlice<u8>),
        (traces, conv_grads): (&mut CudaSlice<f32>, &mut CudaSlice<f32>),
    ) -> Result<(), Error> {
        let (start, count) = (positions.start, positions.len());
        let layout = &self.layout;
        let groups = count.div_ceil(layout.group());
        assert!(images.len() == labels.len() * layout.image_len());
        assert!(part.images == labels.len() && start + count <= part.len);
        assert!(loss.len() >= part.len && correct.len() >= part.len);
        assert!(traces.len() >= count * layout.trace_len() && params.len() == layout.params());
        assert!(conv_grads.len() >= groups * layout.conv_params());
        if count == 0 {
            return Ok(());
        }
        let (start, count) = (start as u32, count as u32);
        let mut launch = self.stream.launch_builder(&self.gradients);
        launch.arg(images).arg(labels).arg(&part.words);
        launch.arg(&start).arg(&count).arg(&scale).arg(params);
        launch.arg(loss).arg(correct).arg(traces).arg(conv_grads);
        // SAFETY: the arguments match the kernel's parameters. `part` and `set_part` allow only positions of images that exist. This
        // holds for a captured launch too, which runs later, with what the part contains then. The kernel writes losses and hits
        // at positions below `start + count`, `count` traces, and `groups` partial sums of gradients. The assertions above check
        // the lengths.
        unsafe { launch.launch(blocks(groups, layout.gradients_bytes())) }
            .map_err(failed("launch the kernel gradients"))?;
        Ok(())
    }

    /// Launches the kernel `update`: adds up the gradients over the batch and applies Adam with the coefficients of `step`.
    pub fn update(
        &self,
        (traces, conv_grads, count): (&CudaSlice<f32>, &CudaSlice<f32>, usize),
        (coefficients, step): (&CudaSlice<f32>, usize),
        [params, moment1, moment2]: [&mut CudaSlice<f32>; 3],
    ) -> Result<(), Error> {
        let layout = &self.layout;
        let groups = count.div_ceil(layout.group());
        assert!(traces.len() >= count * layout.trace_len());
        assert!(conv_grads.len() >= groups * layout.conv_params());
        assert!(coefficients.len() >= COEFFICIENTS * (step + 1));
        assert!([&*params, moment1, moment2].map(|p| p.len()) == [layout.params(); 3]);
        let (count, groups, step) = (count as u32, groups as u32, step as u32);
        let mut launch = self.stream.launch_builder(&self.update);
        launch.arg(traces).arg(&count).arg(conv_grads).arg(&groups);
        launch.arg(coefficients).arg(&step);
        launch.arg(params).arg(moment1).arg(moment2);
        // SAFETY: the arguments match the kernel's parameters. It reads `count` traces, `groups` partial sums and the coefficients
        // of `step`, and writes all parameters and moments. The assertions above check the lengths.
        unsafe { launch.launch(blocks(layout.update_blocks(), 0)) }
            .map_err(failed("launch the kernel update"))?;
        Ok(())
    }

    /// Launches the kernel `sum_gradients`: adds up the gradients over `count` images into `grads`, one per parameter.
    pub fn sum_gradients(
        &self,
        (traces, conv_grads, count): (&CudaSlice<f32>, &CudaSlice<f32>, usize),
        grads: &mut CudaSlice<f32>,
    ) -> Result<(), Error> {
        let layout = &self.layout;
        let groups = count.div_ceil(layout.group());
        assert!(traces.len() >= count * layout.trace_len() && grads.len() == layout.params());
        assert!(conv_grads.len() >= groups * layout.conv_params());
        let (count, groups) = (count as u32, groups as u32);
        let mut launch = self.stream.launch_builder(&self.sum_gradients);
        launch.arg(traces).arg(&count).arg(conv_grads).arg(&groups);
        launch.arg(grads);
        // SAFETY: the arguments match the kernel's parameters. It reads `count` traces and `groups` partial sums, and writes one
        // gradient per parameter. The assertions above check the lengths.
        unsafe { launch.launch(blocks(layout.update_blocks(), 0)) }
            .map_err(failed("launch the kernel sum_gradients"))?;
        Ok(())
    }

    /// Launches the kernel `adam`: applies Adam with the coefficients of `step`.
    pub fn adam(
        &self,
        grads: &CudaSlice<f32>,
        (coefficients, step): (&CudaSlice<f32>, usize),
        [params, moment1, moment2]: [&mut CudaSlice<f32>; 3],
    ) -> Result<(), Error> {
        assert!(coefficients.len() >= COEFFICIENTS * (step + 1));
        let count = self.layout.params();
        assert!([grads, params, moment1, moment2].map(|p| p.len()) == [count; 4]);
        let step = step as u32;
        let mut launch = self.stream.launch_builder(&self.adam);
        launch.arg(grads).arg(coefficients).arg(&step);
        launch.arg(params).arg(moment1).arg(moment2);
        // SAFETY: the arguments match the kernel's parameters. It reads the coefficients of `step` and one gradient per parameter,
        // and writes all parameters and moments. The assertions above check the lengths.
        unsafe { launch.launch(blocks(count.div_ceil(THREADS), 0)) }
            .map_err(failed("launch the kernel adam"))?;
        Ok(())
    }

    /// Launches the kernel `average`: updates the running mean with the parameters, with the coefficients of `step`.
    pub fn average(
        &self,
        params: &CudaSlice<f32>,
        (coefficients, step): (&CudaSlice<f32>, usize),
        mean: &mut CudaSlice<f32>,
    ) -> Result<(), Error> {
        assert!(coefficients.len() >= COEFFICIENTS * (step + 1));
        let count = self.layout.params();
        assert!([params, mean].map(|p| p.len()) == [count; 2]);
        let step = step as u32;
        let mut launch = self.stream.launch_builder(&self.average);
        launch.arg(params).arg(coefficients).arg(&step).arg(mean);
        // SAFETY: the arguments match the kernel's parameters. It reads the coefficients of `step` and all parameters, and writes
        // the mean of each. The assertions above check the lengths.
        unsafe { launch.launch(blocks(count.div_ceil(THREADS), 0)) }
            .map_err(failed("launch the kernel average"))?;
        Ok(())
    }
}

/// Returns a launch of `count` blocks of [`THREADS`] threads, each with `shared_bytes` bytes of dynamic shared memory.
fn blocks(count: usize, shared_bytes: usize) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (count as u32, 1, 1),
        block_dim: (THREADS as u32, 1, 1),
        shared_mem_bytes: shared_bytes as u32,
    }
}

/// Returns the coefficients in the order of step.cu's struct `Coefficients`.
pub fn coefficient_words(c: &Coefficients) -> [f32; COEFFICIENTS] {
    [
        c.keep1,
        c.beta2,
        c.keep2,
        c.step_size,
        c.scale2,
        c.eps,
        c.kept,
        c.keep_mean,
    ]
}

/// Returns the part of an epoch that begins at position `first`, as the words of step.cu's struct `Epoch`.
pub fn epoch_words(order: &Order, first: usize, augment: Option<&Augment>) -> [u32; EPOCH_WORDS] {
    let mut words = [0; EPOCH_WORDS];
    let (order_words, rest) = words.split_at_mut(2 + ROUNDS);
    if let Order::Shuffled(permutation) = order {
        order_words.copy_from_slice(&permutation.words());
    }
    rest[0] = first as u32;
    if let Some(augment) = augment {
        rest[1] = 1;
        rest[2..].copy_from_slice(&augment.keys());
    }
    words
}
