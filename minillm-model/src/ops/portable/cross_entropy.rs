//! The loss from hidden states, a few rows at a time, with its gradients computed on the spot. `cpu/cross_entropy.rs` has
//! the formulas.

use std::ops::Range;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Slice, TensorMetadata, get_or_init_device_settings};
use burn::tensor::{FloatDType, IndexingUpdateOp, Shape};

use super::{narrow, product};

/// Logits held at once where the loss is computed in chunks, in numbers: 64 MiB of f32. Some GPUs refuse buffers above
/// 128 MiB, and B T V passes that soon.
pub const LARGEST_CHUNK: usize = 16 * 1024 * 1024;

/// What comes between the two products: the softmax of some rows.
pub trait Rows<B: Backend> {
    /// The loss of `logits`, `[n, V]`, summed over the rows whose target, `[n]`, is not negative: `[1]`.
    fn loss(logits: FloatTensor<B>, targets: IntTensor<B>) -> FloatTensor<B>;

    /// The same, and its gradient by the logits: `[n, V]`.
    fn loss_and_gradient(logits: FloatTensor<B>, targets: IntTensor<B>) -> [FloatTensor<B>; 2];
}

/// Put together from the backend's operations.
pub struct Operations;

impl<B: Backend> Rows<B> for Operations {
    fn loss(logits: FloatTensor<B>, targets: IntTensor<B>) -> FloatTensor<B> {
        Softmax::<B>::new(logits, targets).loss()
    }

    fn loss_and_gradient(logits: FloatTensor<B>, targets: IntTensor<B>) -> [FloatTensor<B>; 2] {
        let softmax = Softmax::<B>::new(logits, targets);
        [softmax.loss(), softmax.dlogits()]
    }
}

/// The summed loss, `[1]`.
///
/// # Shapes
/// - `hidden`: `[N, D]`, `output`: `[D, V]`, or `[V, D]` if `tied`; `targets`: `[N]`, negative where nothing is scored
pub fn loss<B: Backend, R: Rows<B>>(
    hidden: &FloatTensor<B>,
    output: &FloatTensor<B>,
    targets: &IntTensor<B>,
    tied: bool,
) -> FloatTensor<B> {
    let matrix = if tied { B::float_swap_dims(output.clone(), 0, 1) } else { output.clone() }; // [D, V]
    let chunks = chunks::<B>(hidden, &matrix);
    sum::<B>(chunks.map(|rows| R::loss(logits::<B>(hidden, &matrix, &rows), part_of::<B>(targets, &rows))))
}

/// The summed loss, `[1]`, and the gradients of `hidden` and of `output`; arguments as for [`loss`].
pub fn loss_and_gradients<B: Backend, R: Rows<B>>(
    hidden: &FloatTensor<B>,
    output: &FloatTensor<B>,
    targets: &IntTensor<B>,
    tied: bool,
) -> (FloatTensor<B>, [FloatTensor<B>; 2]) {
    let transposed = |tensor| B::float_swap_dims(tensor, 0, 1);
    let matrix = if tied { transposed(output.clone()) } else { output.clone() }; // [D, V]
    let (mut losses, mut dhidden, mut doutput) = (Vec::new(), Vec::new(), Vec::new());
    for rows in chunks::<B>(hidden, &matrix) {
        let targets = part_of::<B>(targets, &rows);
        let [loss, dlogits] = R::loss_and_gradient(logits::<B>(hidden, &matrix, &rows), targets); // [1], [n, V]
        losses.push(loss);
        let (hidden, like) = (narrow::<B>(hidden, 0, &rows), hidden.dtype().into()); // [n, D]
        dhidden.push(product::<B>(dlogits.clone(), transposed(matrix.clone()), like));
        doutput.push(if tied {
            product::<B>(transposed(dlogits), hidden, like) // [V, D]
        } else {
            product::<B>(transposed(hidden), dlogits, like) // [D, V]
        });
    }
    let dhidden = if dhidden.len() == 1 { dhidden.remove(0) } else { B::float_cat(dhidden, 0) };
    (sum::<B>(losses.into_iter()), [dhidden, sum::<B>(doutput.into_iter())])
}

/// Ranges of rows whose logits are held at once.
fn chunks<B: Backend>(hidden: &FloatTensor<B>, matrix: &FloatTensor<B>) -> impl Iterator<Item = Range<usize>> + use<B> {
    let (n, v) = (hidden.shape()[0], matrix.shape()[1]);
    let rows = (LARGEST_CHUNK / v).clamp(1, n);
    (0..n).step_by(rows).map(move |start| start..n.min(start + rows))
}

fn sum<B: Backend>(mut parts: impl Iterator<Item = FloatTensor<B>>) -> FloatTensor<B> {
    let first = parts.next().expect("a batch has rows");
    parts.fold(first, |sum, part| B::float_add(sum, part))
}

/// Logits of some rows: `[n, V]`.
fn logits<B: Backend>(hidden: &FloatTensor<B>, matrix: &FloatTensor<B>, rows: &Range<usize>) -> FloatTensor<B> {
    product::<B>(narrow::<B>(hidden, 0, rows), matrix.clone(), matrix.dtype().into())
}

/// Targets of some rows: `[n]`.
fn part_of<B: Backend>(targets: &IntTensor<B>, rows: &Range<usize>) -> IntTensor<B> {
    if rows.len() == targets.shape()[0] {
        return targets.clone();
    }
    B::int_slice(targets.clone(), &[Slice::from(rows.start as isize..rows.end as isize)])
}

/// The softmax of some rows, before its division.
struct Softmax<B: Backend> {
    /// Ids, any valid one where nothing is scored: `[n, 1]`
    targets: IntTensor<B>,
    /// 1 or 0: `[n, 1]`
    scored: FloatTensor<B>,
    /// Of the target: `[n, 1]`
    logit: FloatTensor<B>,
    /// The largest logit: `[n, 1]`
    largest: FloatTensor<B>,
    /// e^(logit - largest): `[n, V]`
    weights: FloatTensor<B>,
    /// Their sum: `[n, 1]`
    sums: FloatTensor<B>,
}

impl<B: Backend> Softmax<B> {
    fn new(logits: FloatTensor<B>, targets: IntTensor<B>) -> Self {
        let settings = get_or_init_device_settings::<B>(&logits.device());
        let targets = B::int_reshape(targets, Shape::new([logits.shape()[0], 1]));
        let scored = B::int_greater_equal_elem(targets.clone(), 0.into(), settings.bool_dtype);
        let scored = B::bool_into_float(scored, FloatDType::F32);
        let targets = B::int_clamp_min(targets, 0.into());

        let logit = B::float_gather(1, logits.clone(), targets.clone());
        let largest = B::float_max_dim(logits.clone(), 1);
        let weights = B::float_exp(B::float_sub(logits, largest.clone()));
        let sums = B::float_sum_dim(weights.clone(), 1);
        Self { targets, scored, logit, largest, weights, sums }
    }

    /// `ln(sum of exp) - logit of the target`, over the scored rows: `[1]`.
    fn loss(&self) -> FloatTensor<B> {
        let log_sum = B::float_add(self.largest.clone(), B::float_log(self.sums.clone()));
        let nats = B::float_sub(log_sum, self.logit.clone());
        B::float_sum(B::float_mul(nats, self.scored.clone()))
    }

    /// `softmax - 1 at the target`: `[n, V]`.
    fn dlogits(self) -> FloatTensor<B> {
        let softmax = B::float_mul(self.weights, B::float_div(self.scored.clone(), self.sums));
        B::float_scatter(1, softmax, self.targets, B::float_neg(self.scored), IndexingUpdateOp::Add)
    }
}
