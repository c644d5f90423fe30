//! Walking over a model's parameters by name.
//!
//! Burn visits a module's fields depth first; the path of field names is the tensor's name in a LLaMA file. Steps into
//! an enum's variant (which norm, which MLP) are left out: the file does not know them.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

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

struct Walk<'a, T> {
    /// Names of the enclosing fields; `None` for an enum's variant.
    path: Vec<Option<String>>,
    inner: &'a mut T,
}

impl<T> Walk<'_, T> {
    fn enter(&mut self, name: &str, container: &str) {
        self.path.push((!container.starts_with("Enum:")).then(|| name.to_owned()));
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
