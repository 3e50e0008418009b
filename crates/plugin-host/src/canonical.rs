//! The JSON of a spec, the same at every time: what plugins may see must not depend on hashing.
use serde::Serialize;
use serde_json::Value;

/// The JSON of a spec or a process, with the sets in it sorted.
///
/// Objects are sorted already; capabilities are sets that `oci-spec` keeps in hashing order.
pub(crate) fn json(of: &impl Serialize) -> serde_json::Result<Value> {
    let mut json = serde_json::to_value(of)?;
    for place in ["/process/capabilities", "/capabilities"] {
        let sets = json.pointer_mut(place).and_then(Value::as_object_mut);
        for set in sets
            .into_iter()
            .flatten()
            .filter_map(|(_, set)| set.as_array_mut())
        {
            set.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
    }
    Ok(json)
}
