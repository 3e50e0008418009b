//! An order of containers in which those that share namespaces are neighbours.
use std::cmp::Reverse;

/// What one column has in each row; none matches nothing.
pub(super) type Row = Vec<Option<usize>>;

/// The order, beginning beside the node's column; the one given, where nothing is gained by another.
///
/// A band breaks between two neighbours that are not in the same namespace, so the fewest bands are the
/// shortest way through all columns. Neighbour by neighbour, then by moving single columns: for twenty of
/// them that is good enough, and the same each time.
pub(super) fn order(node: &Row, columns: &[Row]) -> Vec<usize> {
    let mut way = nearest(node, columns);
    // Each round makes the way shorter, so that it ends.
    while let Some(better) = improved(node, columns, &way) {
        way = better;
    }
    way
}

fn nearest(node: &Row, columns: &[Row]) -> Vec<usize> {
    let mut left: Vec<_> = columns.iter().enumerate().collect();
    let mut way = Vec::new();
    let mut at = node;
    while let Some(best) = (0..left.len()).max_by_key(|index| {
        let shared = left.get(*index).map(|(_, column)| shared(at, column));
        (shared, Reverse(*index))
    }) {
        let (index, column) = left.remove(best);
        way.push(index);
        at = column;
    }
    way
}

fn improved(node: &Row, columns: &[Row], way: &[usize]) -> Option<Vec<usize>> {
    let now = joints(node, columns, way);
    for from in 0..way.len() {
        for to in 0..way.len() {
            let mut moved = way.to_vec();
            let column = moved.remove(from);
            moved.insert(to, column);
            if joints(node, columns, &moved) > now {
                return Some(moved);
            }
        }
    }
    None
}

/// How many bands go on from one column to the next.
pub(super) fn joints(node: &Row, columns: &[Row], way: &[usize]) -> usize {
    let along = way.iter().filter_map(|index| columns.get(*index));
    let before = std::iter::once(node).chain(along.clone());
    before
        .zip(along)
        .map(|(one, other)| shared(one, other))
        .sum()
}

fn shared(one: &Row, other: &Row) -> usize {
    let pairs = one.iter().zip(other);
    pairs
        .filter(|(one, other)| one.is_some() && one == other)
        .count()
}
