//! The best nodes for a shape, from scratch: for one that is looked for once, of which a [`Table`](super::table::Table)
//! would cost more than it saves.
//!
//! Most shapes ask for nothing but resources, and most nodes have no taints. Where both is so, the filters and scores
//! of the default profile come down to a few numbers of a node, which are read from their columns here; the rules are
//! those of the plug-ins, whose own functions reckon with the numbers.

use std::rc::Rc;

use super::cache::{Nodes, Slot};
use super::framework::{NORMALIZED, Reads, filter, normalized_score, plain_score, raw_scores};
use super::gpu::Ask;
use super::profile::{Plugin, Strategy};
use super::resources::ResourceId;
use super::scores::{Part, balance_from, balance_of_parts, left, most_balance};
use super::shape::Shape;
use super::table::usage;

/// The best nodes for pods of a shape and priority that depends on nodes alone, in order; none if no node is feasible.
pub fn best(shape: &Rc<Shape>, priority: i32, nodes: &Nodes) -> Vec<Slot> {
    let quick = Quick::of(shape, nodes);
    let nominated: Vec<Slot> = nodes.nominated().collect();
    let mut scores: Vec<(Slot, i64)> = Vec::with_capacity(nodes.len());
    // The places in it of those whose normalised scores are not zero.
    let mut raws: Vec<(usize, [i64; NORMALIZED])> = Vec::new();
    // The best score of the quick ones: their normalised scores are alike, so that a lower one is not the best of all.
    let mut top = i64::MIN;
    for slot in 0..nodes.slots() {
        if let Some(quick) = &quick
            && nodes.is_quiet(slot)
            && (nominated.is_empty() || nominated.binary_search(&slot).is_err())
        {
            if let Some(score) = quick.score(slot as usize, top) {
                top = score;
                scores.push((slot, score));
            }
            continue;
        }
        let present = nodes.is_present(slot);
        if !present || filter(Reads::Node, shape, nodes, slot).is_some() {
            continue;
        }
        if usage(shape, priority, nodes, slot).is_some() {
            continue;
        }
        let raw = raw_scores(shape, nodes, slot);
        if raw != [0; NORMALIZED] {
            raws.push((scores.len(), raw));
        }
        scores.push((slot, plain_score(shape, nodes, slot)));
    }
    normalize(shape, &mut scores, &raws);
    let Some(top) = scores.iter().map(|(_, score)| *score).max() else { return Vec::new() };
    scores.into_iter().filter(|(_, score)| *score == top).map(|(slot, _)| slot).collect()
}

/// Adds the normalised scores, unless they are the same for all.
fn normalize(shape: &Shape, scores: &mut [(Slot, i64)], raws: &[(usize, [i64; NORMALIZED])]) {
    if raws.is_empty() {
        return;
    }
    let max = std::array::from_fn(|i| raws.iter().map(|(_, raw)| raw[i]).max().unwrap_or(0));
    let least = normalized_score(&shape.rules, &[0; NORMALIZED], &max);
    scores.iter_mut().for_each(|(_, score)| *score += least);
    for (at, raw) in raws {
        scores[*at].1 += normalized_score(&shape.rules, raw, &max) - least;
    }
}

/// A resource of all nodes, by slot, and how much a shape asks of it.
struct Column<'a> {
    allocatable: &'a [i64],
    requested: &'a [i64],
    asked: i64,
}

/// What a shape that asks only for resources needs of nodes without taints.
struct Quick<'a> {
    /// What must be free.
    checked: Vec<Column<'a>>,
    /// CPU and memory as NodeResourcesFit scores them, with weights.
    fit: [(Column<'a>, i64); 2],
    /// The same as NodeResourcesBalancedAllocation does; `None` if the shape asks for neither.
    balanced: Option<[Column<'a>; 2]>,
    /// How balanced the nodes are without the pod, if that is known of these resources; -1 of a node where it is not.
    without: Option<&'a [i64]>,
    /// The weights of these plug-ins.
    weights: (i64, i64),
}

impl<'a> Quick<'a> {
    /// `None` if the shape asks for more than resources, or its profile scores in another way than the default one.
    fn of(shape: &Shape, nodes: &'a Nodes) -> Option<Quick<'a>> {
        let rules = &shape.rules;
        let asks_more = shape.is_choosy() || shape.node_name.is_some() || !shape.ports.is_empty();
        let prefers = !shape.preferred.is_empty() || !rules.preferred.is_empty() || rules.required.is_some();
        let usual = rules.strategy == Strategy::LeastAllocated && rules.filters.has(Plugin::NodeResourcesFit);
        if asks_more || prefers || !usual || shape.gpu != Ask::Nothing || rules.weights.of(Plugin::GPUShare) != 0 {
            return None;
        }
        let column = |resource, asked| {
            let (allocatable, requested) = (nodes.allocatable_by_slot(resource)?, nodes.requested_by_slot(resource)?);
            Some(Column { allocatable, requested, asked })
        };
        let scored = |i: usize, resource| match shape.scored.get(i) {
            Some((r, weight, asked)) if *r == resource => {
                let allocatable = nodes.allocatable_by_slot(resource)?;
                Some((Column { allocatable, requested: nodes.nonzero_by_slot(i), asked: *asked }, *weight))
            }
            _ => None,
        };
        let fit = [scored(0, ResourceId::CPU)?, scored(1, ResourceId::MEMORY)?];
        let balanced = match shape.balanced[..] {
            [] => None,
            [a, b] => Some([column(a.0, a.1)?, column(b.0, b.1)?]),
            _ => return None,
        };
        if shape.scored.len() != 2 || fit[0].1 + fit[1].1 <= 0 {
            return None;
        }
        let usual = matches!(shape.balanced[..], [(ResourceId::CPU, _), (ResourceId::MEMORY, _)]);
        let checked = std::iter::once((ResourceId::PODS, 1)).chain(shape.checked());
        Some(Quick {
            checked: checked.map(|(resource, asked)| column(resource, asked)).collect::<Option<_>>()?,
            fit,
            balanced,
            without: usual.then(|| nodes.balance_by_slot()),
            weights: (
                rules.weights.of(Plugin::NodeResourcesFit),
                rules.weights.of(Plugin::NodeResourcesBalancedAllocation),
            ),
        })
    }

    /// The score of a node; `None` if the shape does not fit it, or if the score is less than `least`.
    fn score(&self, slot: usize, least: i64) -> Option<i64> {
        let fits = |c: &Column<'_>| c.asked <= c.allocatable[slot].wrapping_sub(c.requested[slot]);
        if !self.checked.iter().all(fits) {
            return None;
        }
        let (mut sum, mut weights) = (0, 0);
        for (column, weight) in &self.fit {
            let capacity = column.allocatable[slot];
            if capacity > 0 {
                sum += left(column.requested[slot].wrapping_add(column.asked), capacity) * weight;
                weights += weight;
            }
        }
        let fit = self.weights.0 * if weights == 0 { 0 } else { sum / weights };
        let part = |c: &Column<'_>| Part { capacity: c.allocatable[slot], used: c.requested[slot], asked: c.asked };
        let Some([a, b]) = &self.balanced else { return Some(fit).filter(|score| *score >= least) };
        let score = match self.without.map(|without| without[slot]) {
            // Most nodes are not worth the divisions: no balance makes them the best.
            Some(without) if without >= 0 && fit + self.weights.1 * most_balance(without) < least => return None,
            Some(without) if without >= 0 => fit + self.weights.1 * balance_from(without, &[part(a), part(b)]),
            Some(_) | None => fit + self.weights.1 * balance_of_parts(&[part(a), part(b)]),
        };
        Some(score).filter(|score| *score >= least)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{Quick, best};
    use crate::object::{Node, Object, PodStatus};
    use crate::scheduler::cache::{Nodes, Slot};
    use crate::scheduler::gpu::Devices;
    use crate::scheduler::profile::Rules;
    use crate::scheduler::shape::Shape;
    use crate::scheduler::table::scan;

    fn node(name: &str, (cpu, memory, pods): (u32, u32, u32), kind: u32) -> Node {
        let effect = if kind == 1 { "NoSchedule" } else { "PreferNoSchedule" };
        let taints = if kind == 0 { json!([]) } else { json!([{"key": "k", "value": "v", "effect": effect}]) };
        let mut allocatable = json!({"cpu": cpu, "memory": format!("{memory}Gi"), "pods": pods});
        if kind == 3 {
            // One that has no CPU at all, and is cordoned or not.
            allocatable["cpu"] = json!("0");
        }
        let whole = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"taints": if kind == 3 { json!([]) } else { taints }, "unschedulable": kind == 4},
            "status": {"allocatable": allocatable}});
        let Object::Node(node) = Object::from_json(whole).unwrap() else { panic!() };
        node
    }

    fn shape(nodes: &mut Nodes, (cpu, memory): (u32, u32), more: u32) -> Rc<Shape> {
        let mut requests = json!({});
        if cpu > 0 {
            requests["cpu"] = json!(format!("{}m", 310 * cpu));
        }
        if memory > 0 {
            requests["memory"] = json!(format!("{}Mi", 330 * memory));
        }
        let port = if more == 1 { json!([{"containerPort": 80, "hostPort": 80}]) } else { json!([]) };
        let tolerations: Value = if more == 2 { json!([{"key": "k", "operator": "Exists"}]) } else { json!([]) };
        let spec = json!({"tolerations": tolerations,
            "containers": [{"name": "c", "ports": port, "resources": {"requests": requests}}]});
        let spec = serde_json::from_value(spec).unwrap();
        let rules = Rc::new(Rules::default());
        Rc::new(Shape::new(&spec, &PodStatus::default(), &mut nodes.resources, &rules))
    }

    proptest! {
        #[test]
        fn it_finds_what_a_scan_finds(
            // Of few values, so that nodes are equally good, or nearly so.
            sizes in prop::collection::vec(((1u32..4, 1u32..4, 1u32..6), 0u32..6), 1..12),
            placed in prop::collection::vec((0usize..12, (0u32..3, 0u32..3), 0u32..3), 0..12),
            wanted in ((0u32..4, 0u32..4), 0u32..4),
        ) {
            let mut nodes = Nodes::default();
            let names: Vec<String> = (0..sizes.len()).map(|i| format!("n{i}")).collect();
            for (name, (size, kind)) in names.iter().zip(&sizes) {
                nodes.put(&node(name, *size, *kind));
            }
            for (at, size, more) in &placed {
                let shape = shape(&mut nodes, *size, *more);
                nodes.add_pod(&names[at % names.len()], &shape, Devices::NONE);
            }
            let shape = shape(&mut nodes, wanted.0, wanted.1);
            let slots = (0..nodes.slots()).filter(|slot| nodes.is_present(*slot));
            let (all, _) = scan(&shape, 0, &nodes, slots);
            let top = all.iter().map(|(_, score)| *score).max();
            let winners = all.iter().filter(|(_, score)| Some(*score) == top);
            let expect: Vec<Slot> = winners.map(|(slot, _)| *slot).collect();
            prop_assert_eq!(best(&shape, 0, &nodes), expect);
            prop_assert_eq!(Quick::of(&shape, &nodes).is_some(), wanted.1 != 1);
        }
    }
}
