//! Walking over a model's parameters by name.
//!
//! Burn visits a module's fields depth first; the path of field names is the tensor's name in a LLaMA file. Steps into
//! an enum's variant (which norm, which MLP) are left out: the file does not know them.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::burn_compat::is_enum;
use crate::config::{AttentionBias, MlpKind, ModelConfig, NormKind, Position};

/// Sees every parameter with its name.
pub trait ParameterVisitor {
    /// Called once for each parameter, in a fixed order.
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>);
}

/// Replaces every parameter, knowing its name.
pub trait ParameterMapper {
    /// Called once for each parameter, in a fixed order.
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>>;
}

/// Shows every parameter of `module` to `visitor`.
pub fn visit<M: Module>(module: &M, visitor: &mut impl ParameterVisitor) {
    module.visit(&mut Walk { path: Vec::new(), inner: visitor });
}

/// Replaces every parameter of `module` by what `mapper` makes of it.
pub fn map<M: Module>(module: M, mapper: &mut impl ParameterMapper) -> M {
    module.map(&mut Walk { path: Vec::new(), inner: mapper })
}

/// Whether the parameter is the matrix of a linear layer, which Burn keeps as `[in, out]` and files as `[out, in]`.
pub fn is_linear_weight(name: &str) -> bool {
    name.ends_with("_proj.weight") || name == "lm_head.weight"
}

/// Names and shapes (as kept in memory) of all parameters, in order.
pub fn list<M: Module>(module: &M) -> Vec<(String, Vec<usize>)> {
    struct List(Vec<(String, Vec<usize>)>);
    impl ParameterVisitor for List {
        fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
            self.0.push((name.to_owned(), param.lazy_shape().to_vec()));
        }
    }
    let mut list = List(Vec::new());
    visit(module, &mut list);
    list.0
}

/// The first parameter of `module` with a value that is not finite.
pub fn first_not_finite<M: Module>(module: &M) -> Option<String> {
    struct First(Option<String>);
    impl ParameterVisitor for First {
        fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
            let is_finite =
                || param.val().try_to_vec_as::<f32>().is_ok_and(|v| v.iter().all(|value| value.is_finite()));
            if self.0.is_none() && !is_finite() {
                self.0 = Some(name.to_owned());
            }
        }
    }
    let mut first = First(None);
    visit(module, &mut first);
    first.0
}

/// Names and shapes of the parameters that a model of `config` has, in the model's order and in the layout of files (a
/// matrix is `[out, in]`). Nothing is built for it: so a config can be compared with a file before memory is spent.
pub fn expected(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let (v, d, f, e) = (config.vocab_size, config.hidden_size, config.intermediate_size, config.head_dim);
    let (queries, keys) = (config.num_attention_heads * e, config.num_key_value_heads * e);
    let qkv_bias = config.attention_bias != AttentionBias::None;
    let output_bias = config.attention_bias == AttentionBias::All;
    let mut list = Vec::new();
    let mut add = |module: &str, shape: Vec<usize>, bias: bool| {
        let rows = shape[0];
        list.push((format!("{module}.weight"), shape));
        if bias {
            list.push((format!("{module}.bias"), vec![rows]));
        }
    };
    let norm_bias = config.norm == NormKind::LayerNorm && config.mlp_bias;
    add("model.embed_tokens", vec![v, d], false);
    if config.position == Position::Learned {
        add("model.embed_positions", vec![config.max_position_embeddings, d], false);
    }
    for block in (0..config.num_hidden_layers).map(|index| format!("model.layers.{index}")) {
        add(&format!("{block}.input_layernorm"), vec![d], norm_bias);
        add(&format!("{block}.self_attn.q_proj"), vec![queries, d], qkv_bias);
        add(&format!("{block}.self_attn.k_proj"), vec![keys, d], qkv_bias);
        add(&format!("{block}.self_attn.v_proj"), vec![keys, d], qkv_bias);
        add(&format!("{block}.self_attn.o_proj"), vec![d, queries], output_bias);
        if config.qk_norm {
            add(&format!("{block}.self_attn.q_norm"), vec![e], false);
            add(&format!("{block}.self_attn.k_norm"), vec![e], false);
        }
        add(&format!("{block}.post_attention_layernorm"), vec![d], norm_bias);
        if config.mlp == MlpKind::Swiglu {
            add(&format!("{block}.mlp.gate_proj"), vec![f, d], config.mlp_bias);
        }
        add(&format!("{block}.mlp.up_proj"), vec![f, d], config.mlp_bias);
        add(&format!("{block}.mlp.down_proj"), vec![d, f], config.mlp_bias);
    }
    add("model.norm", vec![d], norm_bias);
    if !config.tie_word_embeddings {
        add("lm_head", vec![v, d], false);
    }
    list
}

struct Walk<'a, T> {
    /// Names of the enclosing fields; `None` for an enum's variant.
    path: Vec<Option<String>>,
    inner: &'a mut T,
}

impl<T> Walk<'_, T> {
    fn enter(&mut self, name: &str, container: &str) {
        self.path.push((!is_enum(container)).then(|| name.to_owned()));
    }

    fn name(&self) -> String {
        let parts: Vec<_> = self.path.iter().flatten().map(String::as_str).collect();
        parts.join(".")
    }
}

impl<T: ParameterVisitor> ModuleVisitor for Walk<'_, T> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.name();
        self.inner.visit(&name, param);
    }

    fn enter_module(&mut self, name: &str, container: &str) {
        self.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

impl<T: ParameterMapper> ModuleMapper for Walk<'_, T> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.name();
        self.inner.map(&name, param)
    }

    fn enter_module(&mut self, name: &str, container: &str) {
        self.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}
