//! Held-out conversations of `tales-chat` in which the model answers for itself, graded by program.

use minillm_infer::sampling::Sampling;
use minillm_model::decoder::LanguageModel;
use minillm_model::random::derive;

use super::super::speak;
use crate::conversations::Format;
use crate::error::Result;
use crate::evaluate::Grade;
use crate::metrics::tag;
use crate::tales::chat::{Exam, Skill};
use crate::workers::Workers;

/// The share of passes for every skill in so many conversations. Answers, of which one is right, are the model's likeliest words; tales are
/// drawn at temperature 1, as the corpus is.
pub fn hold(
    model: &LanguageModel,
    workers: &Workers,
    format: &Format,
    end_ids: &[u32],
    exams: u64,
) -> Result<Vec<Grade>> {
    let exams = workers.map(0..exams, |index| hold_one(model, format, end_ids, index));
    let exams = exams.into_iter().collect::<Result<Vec<Exam>>>()?;
    let of = |skill: Skill| {
        let grades = exams.iter().flat_map(|exam| exam.grades().iter().filter(move |(of, _)| *of == skill));
        let (passed, count) =
            grades.fold((0, 0), |(passed, count), (_, is_right)| (passed + usize::from(*is_right), count + 1));
        Grade { tag: tag_of(skill), passed, count, best: 1.0 }
    };
    Ok(Skill::ALL.map(of).to_vec())
}

fn hold_one(model: &LanguageModel, format: &Format, end_ids: &[u32], index: u64) -> Result<Exam> {
    let mut exam = Exam::new(index);
    while let Some(messages) = exam.messages() {
        let temperature = if exam.wants_tale() { 1.0 } else { 0.0 };
        let seed = derive(index, &[messages.len() as u64]);
        let sampling = Sampling { temperature, seed, ..Sampling::default() };
        let words = speak(model, format, end_ids, messages, &sampling)?;
        exam.answer(&words);
    }
    Ok(exam)
}

fn tag_of(skill: Skill) -> &'static str {
    match skill {
        Skill::Ask => tag::VAL_ASK,
        Skill::DoesNotSay => tag::VAL_DOES_NOT_SAY,
        Skill::Form => tag::VAL_FORM,
        Skill::TaleReads => tag::VAL_TALE_READS,
        Skill::TaleAsWished => tag::VAL_TALE_AS_WISHED,
        Skill::OwnTale => tag::VAL_OWN_TALE,
        Skill::Again => tag::VAL_AGAIN,
    }
}
