//! A tensor's numbers where they lie.

/// `[B, heads, T, E]` somewhere in a slice, with the E numbers of a vector side by side. Projections make
/// `[B, T, heads, E]`; looked at from here, nothing has to be moved.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// All numbers of the tensor, and maybe others.
    pub data: &'a [f32],
    /// B, heads, T, E.
    pub shape: [usize; 4],
    /// Numbers between neighbours in B, in heads and in T.
    pub strides: [usize; 3],
}

impl<'a> Heads<'a> {
    /// The values from the first vector of a head on.
    pub fn head(&self, b: usize, head: usize) -> &'a [f32] {
        &self.data[b * self.strides[0] + head * self.strides[1]..]
    }

    /// One vector.
    #[inline(always)]
    pub fn vector(&self, b: usize, head: usize, t: usize) -> &'a [f32] {
        let start = b * self.strides[0] + head * self.strides[1] + t * self.strides[2];
        &self.data[start..start + self.shape[3]]
    }
}

/// The vectors of a tensor stored as `[B, T, heads, E]`, in that order, cut into pieces of whole tokens.
pub fn tokens_per_piece(heads: usize, e: usize) -> usize {
    super::parallel::rows_per_piece(heads * e)
}

/// The vectors of `out`, stored as `[B, T, heads, E]`, sorted by `(b, group)`: of each, its heads' vectors,
/// `[heads / groups, T]`.
pub fn by_group(out: &mut [f32], [b, heads, t, e]: [usize; 4], groups: usize) -> Vec<Vec<&mut [f32]>> {
    let per_group = heads / groups;
    let mut sorted: Vec<Vec<Option<&mut [f32]>>> =
        (0..b * groups).map(|_| (0..per_group * t).map(|_| None).collect()).collect();
    for (index, vector) in out.chunks_exact_mut(e).enumerate() {
        let (token, head) = (index / heads, index % heads);
        let (b, t_index) = (token / t, token % t);
        sorted[b * groups + head / per_group][(head % per_group) * t + t_index] = Some(vector);
    }
    sorted.into_iter().map(|vectors| vectors.into_iter().flatten().collect()).collect()
}
