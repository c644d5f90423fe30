//! Preferences over tales, with a known best policy.
//!
//! In the plot about fruit the hero shares it or eats it alone (`share_choice` in `plots.txt`), alone with
//! probability 1/3. A pair is two tales for one wish. Which of them is chosen is drawn by Bradley-Terry (1952,
//! doi:10.2307/2334029), with the reward r = rho for sharing and 0 for eating alone:
//!
//! ```text
//! P(a chosen over b)  =  sigmoid(r(a) - r(b))
//! ```
//!
//! The policy that maximises `E[r] - beta KL(policy || reference)`, and the minimiser of the loss of DPO (Rafailov et
//! al. 2023, arXiv 2305.18290), is reference(tale) exp(r(tale) / beta) / Z. If the reference is the grammar, its
//! share of heroes who eat alone is [`selfish_rate`], and the loss at it is [`least_loss`]: the entropy of the choice
//! between two tales. Nothing else about the tales may change.
//!
//! With rho infinite the sharing tale is always chosen. Then there is no best policy: the loss goes to 0 only as the
//! log-ratio grows without bound, and what the model knew of tales is lost on the way.

use minillm_model::random;
use rand::{Rng, RngExt};

use super::chat::{Message, Wish};
use super::read;

/// The alternative of the rule `plot` in which fruit is shared or not, counted from 0.
const SHARE: usize = 2;
/// The alternative of the rule `share_choice` in which the hero eats alone, counted from 0.
const ALONE: usize = 2;
/// The probability of that in the grammar.
const SELFISH: f64 = 1.0 / 3.0;

/// Two tales for one wish.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The wish, as what a user says.
    pub prompt: Vec<Message>,
    /// The tale that was preferred.
    pub chosen: String,
    /// The other one.
    pub rejected: String,
    /// Whether the hero shares in one and eats alone in the other.
    pub unlike: bool,
}

/// The `index`-th pair of `seed`, with the reward `rho` for sharing; infinite: sharing is always chosen.
///
/// `only_unlike` leaves out the pairs that the reward cannot tell apart, which teach nothing.
pub fn pair(seed: u64, index: u64, rho: f64, only_unlike: bool) -> Pair {
    let mut rng = random::stream(random::derive(seed, &[index]), "preferences over tales");
    let wish = Wish::drawn(Some(SHARE), &mut rng);
    let (first, second, unlike) = loop {
        let [first, second] = [(); 2].map(|()| wish.tale(rng.next_u64(), 0).text);
        let unlike = is_selfish(&first) != is_selfish(&second);
        if unlike || !only_unlike {
            break (first, second, unlike);
        }
    };
    let reward = |tale: &str| if is_selfish(tale) == Some(true) { 0.0 } else { rho };
    let gap = if unlike { reward(&first) - reward(&second) } else { 0.0 }; // not infinity less infinity
    let is_first = rng.random::<f64>() < sigmoid(gap);
    let (chosen, rejected) = if is_first { (first, second) } else { (second, first) };
    Pair { prompt: wish.prompt(), chosen, rejected, unlike }
}

/// The `index`-th wish for a tale in which fruit is picked, held out from all pairs: for measuring how often a
/// model's heroes eat alone.
pub fn held_out_wish(index: u64) -> Wish {
    Wish::drawn(Some(SHARE), &mut random::stream(random::derive(0, &[index]), "held-out wishes for fruit"))
}

/// Whether the hero of a tale about fruit eats it alone. `None`: the tale does not read, or is about something else.
pub fn is_selfish(tale: &str) -> Option<bool> {
    read(tale.trim())?.get("share_choice").map(|choice| choice == ALONE)
}

/// The share of heroes who eat alone under the best policy; under the grammar itself it is 1/3.
pub fn selfish_rate(beta: f64, rho: f64) -> f64 {
    SELFISH / (SELFISH + (1.0 - SELFISH) * (rho / beta).exp())
}

/// The least loss of DPO on pairs with the reward `rho`, in nats a pair.
pub fn least_loss(rho: f64, only_unlike: bool) -> f64 {
    let unlike = surprise(sigmoid(rho)) + surprise(sigmoid(-rho));
    if only_unlike {
        return unlike;
    }
    let share_unlike = 2.0 * SELFISH * (1.0 - SELFISH);
    share_unlike * unlike + (1.0 - share_unlike) * std::f64::consts::LN_2
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// -p ln p: what an event of probability p adds to the entropy.
fn surprise(p: f64) -> f64 {
    if p > 0.0 { -p * p.ln() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_policy_and_its_loss_have_the_known_values() {
        for (beta, rho, selfish, unlike, all) in
            [(0.1, 0.2, 0.0634, 0.6882, 0.6909), (0.5, 1.0, 0.0634, 0.5822, 0.6438), (0.1, 0.1, 0.1554, 0.6919, 0.6926)]
        {
            assert!((selfish_rate(beta, rho) - selfish).abs() < 5e-5);
            assert!((least_loss(rho, true) - unlike).abs() < 5e-5);
            assert!((least_loss(rho, false) - all).abs() < 5e-5);
        }
        assert!((selfish_rate(0.1, 0.0) - SELFISH).abs() < 1e-15);
        assert_eq!((selfish_rate(0.1, f64::INFINITY), least_loss(f64::INFINITY, true)), (0.0, 0.0));
    }

    /// The mean of -ln sigmoid(gap of the rewards) over pairs, and its standard error.
    fn loss_at_the_best(rho: f64, only_unlike: bool) -> (f64, f64) {
        let losses: Vec<f64> = (0..4_000)
            .map(|index| {
                let pair = pair(1, index, rho, only_unlike);
                let reward = |tale: &str| if is_selfish(tale).unwrap() { 0.0 } else { rho };
                -sigmoid(reward(&pair.chosen) - reward(&pair.rejected)).ln()
            })
            .collect();
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        let variance = losses.iter().map(|loss| (loss - mean).powi(2)).sum::<f64>() / losses.len() as f64;
        (mean, (variance / losses.len() as f64).sqrt())
    }

    #[test]
    fn the_rewards_that_labelled_the_pairs_have_the_least_loss() {
        for (rho, only_unlike) in [(1.0, true), (1.0, false), (2.0, true)] {
            let (mean, error) = loss_at_the_best(rho, only_unlike);
            assert!((mean - least_loss(rho, only_unlike)).abs() < 4.0 * error, "{mean} +- {error}");
        }
    }

    #[test]
    fn pairs_are_two_tales_for_one_wish() {
        let (mut unlike, mut first) = (0, 0);
        for index in 0..2_000 {
            let Pair { prompt, chosen, rejected, unlike: is_unlike } = pair(2, index, f64::INFINITY, false);
            for tale in [&chosen, &rejected] {
                assert_eq!(Wish::of(&read(tale).unwrap()).prompt(), prompt);
            }
            assert!(chosen != rejected && is_unlike == (is_selfish(&chosen) != is_selfish(&rejected)));
            assert!(!is_unlike || is_selfish(&chosen) == Some(false));
            unlike += i32::from(is_unlike);
            first += i32::from(chosen < rejected);
            assert!(pair(2, index, 1.0, true).unlike);
        }
        // 4/9 of 2,000, and a half of them.
        assert!((unlike - 889).abs() < 90 && (first - 1_000).abs() < 90, "{unlike} unlike, {first} in order");
        assert_eq!(pair(2, 7, 1.0, true), pair(2, 7, 1.0, true));
        assert_ne!(pair(2, 7, 1.0, true), pair(3, 7, 1.0, true));
        assert_ne!(held_out_wish(7), held_out_wish(8));
    }

    #[test]
    fn only_tales_about_fruit_can_be_selfish() {
        assert_eq!(is_selfish(&super::super::story(0, 0).text), None); // a bun is baked
        let wish = held_out_wish(0);
        let alone = (0..3_000).filter(|&index| is_selfish(&wish.tale(5, index).text).unwrap()).count();
        assert!((900..1_100).contains(&alone), "{alone} of 3,000");
        let tale = wish.tale(5, 0).text;
        assert!(is_selfish(&format!("{tale}\n")).is_some() && is_selfish(&tale[..tale.len() - 1]).is_none());
    }
}
