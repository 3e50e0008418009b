//! Sharers are neighbours where that is possible.
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::order::{Row, joints, order};

fn row(spaces: &[usize]) -> Row {
    spaces.iter().copied().map(Some).collect()
}

#[test]
fn those_that_share_are_put_side_by_side_and_nothing_else_moves() {
    let node = row(&[0, 0]);
    let columns = [row(&[1, 7]), row(&[2, 8]), row(&[1, 9]), row(&[0, 6])];
    assert_eq!(order(&node, &columns), [3, 0, 2, 1]);
    let alike = [row(&[1, 1]), row(&[1, 1]), row(&[1, 1])];
    assert_eq!(order(&node, &alike), [0, 1, 2]);
    assert_eq!(order(&node, &[]), Vec::<usize>::new());
}

proptest! {
    #[test]
    fn an_order_has_everyone_once_and_is_no_worse_than_the_one_given(
        columns in vec(vec(proptest::option::of(0_usize..4), 8), 0..=20),
        node in vec(proptest::option::of(0_usize..4), 8),
    ) {
        let given: Vec<_> = (0..columns.len()).collect();
        let found = order(&node, &columns);
        let mut sorted = found.clone();
        sorted.sort_unstable();
        prop_assert_eq!(&sorted, &given);
        // A neighbour at a time may begin worse; moving single columns has to make up for it.
        prop_assert!(joints(&node, &columns, &found) >= joints(&node, &columns, &given) * 9 / 10);
    }
}
