//! Taking turns: A B C A B C, so that what disturbs the machine disturbs all alike.
use anyhow::{Context as _, Result};

use crate::report::{Measured, Outcome};
use crate::stats::{Sample, spreads};
use husk_terminal::messages::say;

/// How often each takes its turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounds {
    /// Before those that count.
    pub(crate) warmups: usize,
    /// Those that count.
    pub(crate) counted: usize,
}

/// The name and the title of a measure.
pub(crate) type Titles<'a> = (&'a str, &'a str);

/// Lets each subject take its turn in each round. A turn gives a sample for each of `titles`.
///
/// # Errors
/// The first turn that fails, with whose it was.
pub(crate) async fn in_turn<S, const N: usize>(
    titles: [Titles<'_>; N],
    subjects: &mut [(String, S)],
    rounds: Rounds,
    mut turn: impl AsyncFnMut(&mut S) -> Result<[Sample; N]>,
) -> Result<Vec<Measured>> {
    let what = titles.map(|(name, _)| name).join(", ");
    let names: Vec<_> = subjects.iter().map(|(name, _)| name.as_str()).collect();
    say(format_args!(
        "{what}: {} in turn, {} + {} rounds",
        names.join(", "),
        rounds.warmups,
        rounds.counted
    ));
    let mut samples: Vec<[Vec<Sample>; N]> = subjects
        .iter()
        .map(|_| std::array::from_fn(|_| Vec::new()))
        .collect();
    for round in 0..rounds.warmups + rounds.counted {
        for ((name, subject), samples) in subjects.iter_mut().zip(&mut samples) {
            let turn = turn(subject).await;
            let turn = turn.with_context(|| format!("{what} of {name}, round {round}"))?;
            if round >= rounds.warmups {
                for (samples, sample) in samples.iter_mut().zip(turn) {
                    samples.push(sample);
                }
            }
        }
    }
    let measured = titles.iter().enumerate().map(|(at, (name, title))| {
        let outcomes = subjects
            .iter()
            .zip(&samples)
            .map(|((name, _), samples)| Outcome {
                candidate: name.clone(),
                values: samples
                    .get(at)
                    .map(|samples| spreads(samples))
                    .unwrap_or_default(),
            });
        Measured {
            name: (*name).to_owned(),
            title: (*title).to_owned(),
            outcomes: outcomes.collect(),
        }
    });
    Ok(measured.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Quantity;

    #[tokio::test]
    async fn each_takes_its_turn_in_each_round() {
        let mut order = String::new();
        let mut subjects = vec![("a".to_owned(), 1.0), ("b".to_owned(), 10.0)];
        let rounds = Rounds {
            warmups: 1,
            counted: 2,
        };
        let measured = in_turn(
            [("x", "X")],
            &mut subjects,
            rounds,
            async |value: &mut f64| {
                order.push_str(&format!("{value} "));
                *value += 1.0;
                Ok([vec![(Quantity::WallMs, *value)]])
            },
        );
        let measured = measured.await.unwrap();
        assert_eq!(order, "1 10 2 11 3 12 ");
        let spread = measured[0].of("b", Quantity::WallMs).unwrap();
        assert_eq!((spread.min, spread.max, spread.rounds), (12.0, 13.0, 2));
    }
}
