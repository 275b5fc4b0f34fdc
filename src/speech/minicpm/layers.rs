//! Layers that the networks share, as graph operations. Sequences are `[width, time]`, `ne[0]` first.

use super::device::Tensors;
use super::ffi::{Graph, Node, Unary};

/// `W x + b`.
pub fn linear(g: &mut Graph<'_>, w: &Tensors, name: &str, x: Node) -> Node {
    let (weight, bias) = (g.stored(w, &format!("{name}.weight")), g.stored(w, &format!("{name}.bias")));
    let y = g.mul_mat(weight, x);
    g.add(y, bias)
}

/// Layer norm with weight and bias.
pub fn layer_norm(g: &mut Graph<'_>, w: &Tensors, name: &str, x: Node, eps: f32) -> Node {
    let (weight, bias) = (g.stored(w, &format!("{name}.weight")), g.stored(w, &format!("{name}.bias")));
    let y = g.norm(x, eps);
    let y = g.mul(y, weight);
    g.add(y, bias)
}

/// A convolution without padding: `[in, time, …]` gives `[out, time − (taps − 1) · dilation, …]`. One product for all taps
/// of all frames, then sums; ggml's own 1-D convolution rounds to 16 bits on the way. The kernel is laid out by
/// `Form::Taps`.
pub fn conv(g: &mut Graph<'_>, w: &Tensors, name: &str, x: Node, dilation: usize) -> Node {
    let (kernel, bias) = (g.stored(w, &format!("{name}.weight")), g.stored(w, &format!("{name}.bias")));
    let [into, out, taps, _] = kernel.ne;
    let kernel = g.reshape(kernel, &[into, out * taps]);
    let y = g.mul_mat(kernel, x);
    let y = g.sum_taps(y, taps, dilation);
    g.add(y, bias)
}

/// A convolution with `(taps − 1) · dilation / 2` zeros on both sides, so that the length stays. One product with the
/// windows of all frames: for long signals and narrow channels. The kernel lies as in the file.
pub fn conv_same(g: &mut Graph<'_>, w: &Tensors, name: &str, x: Node, dilation: usize) -> Node {
    let (kernel, bias) = (g.stored(w, &format!("{name}.weight")), g.stored(w, &format!("{name}.bias")));
    let [taps, into, out, _] = kernel.ne;
    let x = g.permute(x, [1, 0, 2, 3]);
    let windows = g.windows(kernel, x, 1, (taps - 1) * dilation / 2, dilation);
    let kernel = g.reshape(kernel, &[taps * into, out]);
    let y = g.mul_mat(kernel, windows);
    g.add(y, bias)
}

/// A transposed convolution of kernel `[in, out · stride, blocks]` (`Form::Phases`) and `taps` taps, cropped by
/// `(taps − stride) / 2` on both sides: `[in, time]` gives `[out, time · stride]`.
pub fn conv_transposed(g: &mut Graph<'_>, w: &Tensors, name: &str, x: Node, stride: usize, taps: usize) -> Node {
    let (kernel, bias) = (g.stored(w, &format!("{name}.weight")), g.stored(w, &format!("{name}.bias")));
    let (out, blocks, time) = (kernel.ne[1] / stride, kernel.ne[2], x.ne[1]);
    let mut sum = None;
    for block in 0..blocks {
        let matrix = g.slice(kernel, 2, block, 1);
        let y = g.mul_mat(matrix, x);
        let y = g.reshape(y, &[out, stride * time]);
        let y = g.pad(y, block * stride, (blocks - 1 - block) * stride);
        sum = Some(match sum {
            None => y,
            Some(sum) => g.add(sum, y),
        });
    }
    let Some(sum) = sum else { return x };
    let crop = (taps - stride) / 2;
    let y = g.slice(sum, 1, crop, (time - 1) * stride + taps - 2 * crop);
    g.add(y, bias)
}

/// GELU in its tanh form, as `x · σ(2 √(2/π) (x + 0.044715 x³))`: ggml's own takes a table of 16-bit floats.
pub fn gelu(g: &mut Graph<'_>, x: Node) -> Node {
    let k = 2.0 * (2.0 / std::f32::consts::PI).sqrt();
    let square = g.unary(x, Unary::Sqr);
    let inner = g.affine(square, 0.044_715 * k, k);
    let inner = g.mul(inner, x);
    let gate = g.unary(inner, Unary::Sigmoid);
    g.mul(x, gate)
}

/// `x · tanh(ln(1 + eˣ))`.
pub fn mish(g: &mut Graph<'_>, x: Node) -> Node {
    let soft = g.unary(x, Unary::Softplus);
    let gate = g.unary(soft, Unary::Tanh);
    g.mul(x, gate)
}
