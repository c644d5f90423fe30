//! The matrices of a block by name: what is adapted, and what generation reads in another form.

use crate::block::Block;
use crate::layers::Mlp;
use crate::layers::attention::Attention;
use crate::layers::linear::Linear;

impl Block {
    /// Its matrices with their names.
    pub(crate) fn linears(&mut self) -> Vec<(&'static str, &mut Linear)> {
        let Attention { q_proj, k_proj, v_proj, o_proj, .. } = &mut self.self_attn;
        let mut linears = vec![
            ("self_attn.q_proj", q_proj),
            ("self_attn.k_proj", k_proj),
            ("self_attn.v_proj", v_proj),
            ("self_attn.o_proj", o_proj),
        ];
        match &mut self.mlp {
            Mlp::Swiglu(mlp) => linears.extend([
                ("mlp.gate_proj", &mut mlp.gate_proj),
                ("mlp.up_proj", &mut mlp.up_proj),
                ("mlp.down_proj", &mut mlp.down_proj),
            ]),
            Mlp::Gelu(mlp) => {
                linears.extend([("mlp.up_proj", &mut mlp.up_proj), ("mlp.down_proj", &mut mlp.down_proj)]);
            }
        }
        linears
    }
}
