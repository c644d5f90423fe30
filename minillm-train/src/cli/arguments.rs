//! Arguments that several verbs have.

use std::path::PathBuf;

use minillm_infer::device::{self, DeviceInfo};
use minillm_train::config::RunConfig;
use minillm_train::error::Result;

/// A configuration and its changes.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// A configuration file, as in configs/
    #[arg(value_name = "CONFIG")]
    pub path: PathBuf,
    /// Change a key of the file, `--set train.max_steps=500`; may be given several times
    #[arg(long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    set: Vec<String>,
}

/// What to compute on.
#[derive(Debug, clap::Args)]
pub struct DeviceArgs {
    /// What to compute on: auto, or a name from `minillm-train devices`
    #[arg(long, value_name = "D", default_value = "auto")]
    device: String,
}

/// What a result is printed as.
#[derive(Debug, clap::Args)]
pub struct JsonArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl ConfigArgs {
    /// Reads the file and changes it.
    pub fn load(&self) -> Result<RunConfig> {
        RunConfig::load(&self.path, &self.set)
    }
}

impl DeviceArgs {
    /// Opens the device.
    pub fn open(&self) -> Result<DeviceInfo> {
        Ok(device::open(&self.device)?)
    }
}
