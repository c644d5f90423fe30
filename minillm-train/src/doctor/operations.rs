//! Every operation that has a fast form, and plain parts of a model that have none, forward and backward: the project's
//! [table of cases](minillm_model::cases).

use minillm_model::cases;

use super::check::{Check, Group, Setting};

/// A check for each row of the table.
pub fn checks() -> Vec<Check> {
    let check = |case: cases::Case| {
        let (for_generation, prepare) = (case.for_generation, case.stored);
        let compute = move |setting: &Setting| prepare(&setting.place).compute();
        Check { for_generation, ..Check::new(Group::Operations, case.name, case.has_fast, compute) }
    };
    cases::all().into_iter().map(check).collect()
}
