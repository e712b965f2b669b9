//! Adam, over flat slices, without any notion of a layer. With weight decay it is AdamW. It can also keep a running mean of the
//! parameters.
//!
//! Kingma and Ba: Adam: a method for stochastic optimization, 2015; in the order of operations of `torch.optim.Adam`;
//! Loshchilov and Hutter: Decoupled weight decay regularization, 2019; SGDR: stochastic gradient descent with warm
//! restarts, 2017 (the cosine, without restarts); Polyak and Juditsky: Acceleration of stochastic approximation by
//! averaging, 1992 (the mean).

/// The settings of Adam.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Learning rate, per step.
    pub lr: f64,
    /// Decay of the first moment, per step.
    pub beta1: f64,
    /// Decay of the second moment, per step.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay: each step subtracts `lr * weight_decay` of each parameter.
    pub weight_decay: f64,
    /// How the learning rate changes from `lr` on.
    pub schedule: Schedule,
    /// The approximate number of recent steps that the running mean covers; `None` for no mean. Up to this number of steps, it is
    /// the plain mean; after that, each further step has a weight of one divided by this number.
    pub average: Option<u64>,
}

/// The learning rate over the steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// The same in each step.
    Constant,
    /// Half a cosine, from `lr` at the first step to zero after the last.
    Cosine {
        /// The total number of steps.
        steps: u64,
    },
}

impl Default for Adam {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            schedule: Schedule::Constant,
            average: None,
        }
    }
}

/// The coefficients of one step's update, the same for every parameter. Each backend computes
///
/// ```text
/// m += (g - m) * keep1
/// v  = v * beta2 + g * g * keep2
/// p  = p * kept - step_size * m / (sqrt(v) * scale2 + eps)
/// mean += (p - mean) * keep_mean      if there is one
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// `1 - beta1`
    pub keep1: f32,
    /// `beta2`
    pub beta2: f32,
    /// `1 - beta2`
    pub keep2: f32,
    /// `lr / (1 - beta1^step)`: the bias correction of the first moment.
    pub step_size: f32,
    /// `1 / sqrt(1 - beta2^step)`: the bias correction of the second moment.
    pub scale2: f32,
    /// See [`Adam::eps`].
    pub eps: f32,
    /// `1 - lr * weight_decay`. Without weight decay it is 1, and the product has the bits of Adam.
    pub kept: f32,
    /// `1 / min(step, average)`; without a mean it is 1, and unused.
    pub keep_mean: f32,
}

impl Adam {
    /// Returns the learning rate of a step, counted from 1.
    pub fn lr_at(&self, step: u64) -> f64 {
        match self.schedule {
            Schedule::Constant => self.lr,
            Schedule::Cosine { steps } => {
                let share = (step - 1) as f64 / steps as f64;
                self.lr * (1.0 + libm::cos(std::f64::consts::PI * share)) / 2.0
            }
        }
    }

    /// Returns the coefficients of a step, counted from 1. They are computed in f64 and rounded once.
    pub fn coefficients(&self, step: u64) -> Coefficients {
        // `libm::pow`, because std's powers can differ between machines.
        let corrected = |beta: f64| 1.0 - libm::pow(beta, step as f64);
        let lr = self.lr_at(step);
        Coefficients {
            keep1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            keep2: (1.0 - self.beta2) as f32,
            step_size: (lr / corrected(self.beta1)) as f32,
            scale2: (1.0 / corrected(self.beta2).sqrt()) as f32,
            eps: self.eps as f32,
            kept: (1.0 - lr * self.weight_decay) as f32,
            keep_mean: (1.0 / step.min(self.average.unwrap_or(1)) as f64) as f32,
        }
    }
}

/// Runs one step of Adam: updates the parameters and both moments from the gradients. All slices have the same length.
#[inline(always)]
pub fn update(
    c: &Coefficients,
    params: &mut [f32],
    grads: &[f32],
    moment1: &mut [f32],
    moment2: &mut [f32],
) {
    assert!(
        params.len() == grads.len()
            && grads.len() == moment1.len()
            && moment1.len() == moment2.len()
    );
    for (((p, &g), m), v) in params.iter_mut().zip(grads).zip(moment1).zip(moment2) {
        *m += (g - *m) * c.keep1;
        *v = *v * c.beta2 + g * g * c.keep2;
        *p = *p * c.kept - c.step_size * *m / (v.sqrt() * c.scale2 + c.eps);
    }
}

/// Updates the mean with the parameters after a step. Both slices have the same length.
#[inline(always)]
pub fn average(c: &Coefficients, params: &[f32], mean: &mut [f32]) {
    assert!(params.len() == mean.len());
    for (mean, &p) in mean.iter_mut().zip(params) {
        *mean += (p - *mean) * c.keep_mean;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean before the first step has no influence.
    #[test]
    fn the_mean_is_first_a_plain_then_a_moving_average() {
        let adam = Adam {
            average: Some(4),
            ..Adam::default()
        };
        let mut mean = [64.0];
        for (step, (p, expected)) in (1..).zip([
            (8.0, 8.0),
            (4.0, 6.0),
            (12.0, 8.0),
            (0.0, 6.0),
            (10.0, 7.0),
            (-1.0, 5.0),
        ]) {
            average(&adam.coefficients(step), &[p], &mut mean);
            assert!((mean[0] - expected).abs() < 1e-6, "{step}: {mean:?}");
        }
    }

    #[test]
    fn the_first_step_has_length_lr_against_the_gradient() {
        let (mut p, mut m, mut v) = ([1.0, 1.0, 1.0], [0.0; 3], [0.0; 3]);
        update(
            &Adam::default().coefficients(1),
            &mut p,
            &[0.5, -2e-3, 0.0],
            &mut m,
            &mut v,
        );
        for (p, expected) in p.iter().zip([0.999, 1.001, 1.0]) {
            assert!((p - expected).abs() < 1e-7, "{p} {expected}");
        }
    }

    #[test]
    fn the_cosine_falls_from_lr_to_zero() {
        let adam = Adam {
            lr: 0.5,
            schedule: Schedule::Cosine { steps: 4 },
            ..Adam::default()
        };
        let expected = [0.5, 0.426_776_695_296_636_9, 0.25, 0.073_223_304_703_363_1];
        for (step, expected) in (1..).zip(expected) {
            let found = adam.lr_at(step);
            assert!(
                (found - expected).abs() < 1e-15,
                "{step}: {found} {expected}"
            );
        }
    }

    /// Compares with AdamW computed in f64 here, with a falling learning rate. The decay is taken from the parameter, not added
    /// to the gradient.
    #[test]
    fn weight_decay_is_decoupled() {
        let adam = Adam {
            lr: 0.1,
            weight_decay: 0.05,
            schedule: Schedule::Cosine { steps: 3 },
            ..Adam::default()
        };
        let (mut p, mut m, mut v) = ([2.0], [0.0], [0.0]);
        let (mut p64, mut m64, mut v64) = (2.0, 0.0, 0.0);
        for (step, (g, lr)) in [(1.0, 0.1), (-0.5, 0.075), (0.25, 0.025)]
            .into_iter()
            .enumerate()
        {
            let t = step as i32 + 1;
            update(
                &adam.coefficients(t as u64),
                &mut p,
                &[g as f32],
                &mut m,
                &mut v,
            );
            m64 = 0.9 * m64 + 0.1 * g;
            v64 = 0.999 * v64 + 0.001 * g * g;
            let (m_hat, v_hat) = (m64 / (1.0 - 0.9f64.powi(t)), v64 / (1.0 - 0.999f64.powi(t)));
            p64 = p64 - lr * 0.05 * p64 - lr * m_hat / (f64::sqrt(v_hat) + 1e-8);
            let error = f64::from(p[0]) - p64;
            assert!(error.abs() < 1e-6, "step {t}: {} {p64}", p[0]);
        }
    }

    #[test]
    fn three_steps_match_the_formulas_of_the_paper() {
        // Gradients 1, 1, -1 on p = 0: computed in f64 from the paper's formulas.
        let (mut p, mut m, mut v) = ([0.0], [0.0], [0.0]);
        let (mut m64, mut v64, mut p64) = (0.0, 0.0, 0.0);
        for (step, g) in [1.0, 1.0, -1.0].into_iter().enumerate() {
            update(
                &Adam::default().coefficients(step as u64 + 1),
                &mut p,
                &[g as f32],
                &mut m,
                &mut v,
            );
            let t = step as i32 + 1;
            m64 = 0.9 * m64 + 0.1 * g;
            v64 = 0.999 * v64 + 0.001 * g * g;
            let (m_hat, v_hat) = (m64 / (1.0 - 0.9f64.powi(t)), v64 / (1.0 - 0.999f64.powi(t)));
            p64 -= 1e-3 * m_hat / (f64::sqrt(v_hat) + 1e-8);
            assert!(
                (f64::from(p[0]) - p64).abs() < 1e-9,
                "step {t}: {} {p64}",
                p[0]
            );
        }
    }
}
