//! What depends on a habit of Burn that its types do not promise: the first place to look at when Burn is updated. The tests
//! make the real Burn show each habit.

use burn::optim::{MuonState, RecordState, StateSink};
use minillm_model::checkpoint::weights::HostTensor;
use minillm_model::error::Error as ModelError;

use crate::error::Result;

/// The running mean of the gradients in a state of Muon. Burn keeps this tensor private; what a state is flattened into for
/// a record is that tensor alone.
pub fn momentum_buffer(state: &MuonState<2>) -> Result<HostTensor> {
    let mut sink = StateSink::default();
    state.state_flatten("", &mut sink);
    let [(_, data)] = <[_; 1]>::try_from(sink.tensors)
        .map_err(|tensors| ModelError::Device(format!("a state of Muon has {} tensors", tensors.len())))?;
    let shape = data.shape().to_vec();
    let values = data.try_into_vec::<f32>().map_err(|error| ModelError::Device(error.to_string()))?;
    Ok(HostTensor { shape, values })
}

#[cfg(test)]
mod tests {
    use burn::optim::{MuonConfig, Optimizer};
    use burn::tensor::Tensor;
    use minillm_infer::device;

    use super::*;

    /// Without dampening the buffer is `m = 0.95 m + g`.
    #[test]
    fn a_state_of_muon_is_flattened_into_its_buffer() {
        let device = device::open("flex").unwrap().device;
        let muon = MuonConfig::new().build();
        let matrix = |values: [[f32; 2]; 3]| Tensor::<2>::from_data(values, &device);
        let gradients = [[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[-1.0, 0.5], [0.25, 8.0], [0.0, 1.0]]];
        let (mut weight, mut state, mut expected) = (matrix([[0.0; 2]; 3]), None, vec![0.0f32; 6]);
        for gradient in gradients {
            (weight, state) = muon.step(0.1, weight, matrix(gradient), state);
            for (mean, new) in expected.iter_mut().zip(gradient.as_flattened()) {
                *mean = 0.95 * *mean + new;
            }
            let HostTensor { shape, values } = momentum_buffer(state.as_ref().unwrap()).unwrap();
            assert_eq!((shape, values), (vec![3, 2], expected.clone()));
        }
    }
}
