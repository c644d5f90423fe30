//! What depends on a text of Burn that its types do not promise: the first place to look at when Burn is updated. The tests
//! make the real Burn say it.

/// Whether a module that Burn visits is an enum: then the step into it is into a variant, whose name is no field's. Burn
/// says of what kind a container is in a text, `Struct:Linear` or `Enum:Norm`.
pub fn is_enum(container: &str) -> bool {
    container.starts_with("Enum:")
}

#[cfg(test)]
mod tests {
    use burn::module::{Module, ModuleVisitor, Param};
    use burn::tensor::{Device, Tensor};

    use super::*;

    #[derive(Module, Debug)]
    enum Choice {
        One(Leaf),
    }

    #[derive(Module, Debug)]
    struct Leaf {
        weight: Param<Tensor<1>>,
    }

    #[derive(Module, Debug)]
    struct Root {
        choice: Choice,
        leaf: Leaf,
        list: Vec<Leaf>,
    }

    #[derive(Default)]
    struct Containers(Vec<(String, bool)>);

    impl ModuleVisitor for Containers {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.push((name.to_owned(), is_enum(container)));
        }
    }

    #[test]
    fn a_step_into_a_variant_is_told_from_one_into_a_field() {
        let leaf = || Leaf { weight: Param::from_tensor(Tensor::zeros([1], &Device::flex())) };
        let root = Root { choice: Choice::One(leaf()), leaf: leaf(), list: vec![leaf()] };
        let mut containers = Containers::default();
        root.visit(&mut containers);
        let (variants, fields): (Vec<_>, Vec<_>) = containers.0.into_iter().partition(|(_, is_enum)| *is_enum);
        let names = |steps: Vec<(String, bool)>| steps.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(variants), ["One"]);
        assert_eq!(names(fields), ["choice", "weight", "leaf", "weight", "list", "0", "weight"]);
    }
}
