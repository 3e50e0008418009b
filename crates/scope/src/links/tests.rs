use proptest::prelude::*;

use super::*;

fn link(direction: Direction, peer: &str, port: u16, local: u16) -> Link {
    Link {
        direction,
        peer: match peer {
            POD => Peer::Pod,
            name => Peer::Container(name.to_owned()),
        },
        port,
        local,
        protocol: Protocol::Tcp,
        by: "configuration".to_owned(),
    }
}

fn to(peer: &str, port: u16) -> Link {
    link(Direction::To, peer, port, port)
}

fn from(peer: &str, port: u16) -> Link {
    link(Direction::From, peer, port, port)
}

/// Containers by name, scope and links, planned on a pod with a network of its own.
fn planned(containers: &[(&str, Scope, Vec<Link>)]) -> Result<Vec<Planned>, LinkError> {
    on(&Scope::Pod, containers)
}

fn on(pod: &Scope, containers: &[(&str, Scope, Vec<Link>)]) -> Result<Vec<Planned>, LinkError> {
    let present: Vec<_> = containers
        .iter()
        .map(|(name, network, links)| Present {
            name,
            network,
            links,
        })
        .collect();
    plan(&present, pod, &Ceiling::default())
}

fn container(name: &str) -> Network {
    Network::Container(name.to_owned())
}

#[test]
fn a_link_to_a_container_leads_from_a_loopback_port_to_the_network_it_is_in() {
    let agent = (
        "agent",
        Scope::Container,
        vec![link(Direction::To, "proxy", 8080, 3128)],
    );
    let to_network = |scope: Scope| {
        let planned = planned(&[agent.clone(), ("proxy", scope, vec![])]).unwrap();
        let joined = planned[0].joined.clone();
        assert_eq!((joined.from, joined.port), (container("agent"), 3128));
        assert_eq!((joined.to_port, joined.exposed), (8080, false));
        joined.to
    };
    assert_eq!(to_network(Scope::Pod), Network::Pod);
    assert_eq!(to_network(Scope::Container), container("proxy"));
    assert_eq!(
        to_network(Scope::Group("g".into())),
        Network::Group("g".into())
    );
}

#[test]
fn a_link_from_the_pod_is_on_the_pods_addresses() {
    let agent = (
        "agent",
        Scope::Container,
        vec![link(Direction::From, POD, 9000, 80)],
    );
    let joined = planned(&[agent]).unwrap()[0].joined.clone();
    assert_eq!(
        (joined.from, joined.port, joined.exposed),
        (Network::Pod, 9000, true)
    );
    assert_eq!((joined.to, joined.to_port), (container("agent"), 80));
}

#[test]
fn a_link_comes_with_the_container_that_it_names() {
    let agent = ("agent", Scope::Container, vec![to("proxy", 8080)]);
    assert_eq!(planned(std::slice::from_ref(&agent)).unwrap(), []);
    let both = planned(&[agent, ("proxy", Scope::Pod, vec![])]).unwrap();
    assert_eq!(both.len(), 1);
}

#[test]
fn a_container_that_targets_another_is_in_its_network() {
    let debug = ("debug", Scope::Target("agent".into()), vec![to(POD, 80)]);
    let agent = ("agent", Scope::Container, vec![]);
    let joined = planned(&[agent, debug.clone()]).unwrap()[0].joined.clone();
    assert_eq!(joined.from, container("agent"));
    assert_eq!(
        planned(std::slice::from_ref(&debug)).unwrap(),
        [],
        "no target"
    );
    let error = planned(&[("agent", Scope::Node, vec![]), debug]).unwrap_err();
    assert!(matches!(error, LinkError::Node { .. }), "{error}");
}

#[test]
fn the_nodes_network_is_no_end() {
    let error = on(
        &Scope::Node,
        &[("agent", Scope::Container, vec![to(POD, 80)])],
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the pod is on the node's network"),
        "{error}"
    );
    let proxy = ("proxy", Scope::Node, vec![]);
    let error = planned(&[("agent", Scope::Container, vec![to("proxy", 80)]), proxy]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("container proxy is on the node's network"),
        "{error}"
    );
    let error = planned(&[("agent", Scope::Node, vec![to(POD, 80)])]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("container agent is on the node's network"),
        "{error}"
    );
    // What is POD in a pod that uses the node's network is the node's.
    let proxy = ("proxy", Scope::Pod, vec![]);
    let agent = ("agent", Scope::Container, vec![to("proxy", 80)]);
    let error = on(&Scope::Node, &[agent, proxy]).unwrap_err();
    assert!(matches!(error, LinkError::Node { .. }), "{error}");
}

#[test]
fn two_ends_in_one_network_make_no_link() {
    let error = planned(&[("agent", Scope::Pod, vec![to(POD, 80)])]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "container agent cannot have the link to tcp port 80 of the pod, decided by \
         configuration: both are in the pod's network, where the port is reached without a link"
    );
}

#[test]
fn a_port_leads_to_one_place() {
    let one = ("one", Scope::Container, vec![from(POD, 80)]);
    let two = ("two", Scope::Container, vec![from(POD, 80)]);
    let error = planned(&[one.clone(), two]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "container two cannot have the link from tcp port 80 of the pod, decided by \
         configuration: tcp port 80 of the pod's network is taken by a link of container one, \
         decided by configuration; give one of them another `port`"
    );
    let mut udp = from(POD, 80);
    udp.protocol = Protocol::Udp;
    planned(&[one, ("two", Scope::Container, vec![udp])]).unwrap();
}

#[test]
fn containers_of_one_group_may_have_the_same_link() {
    let group = || Scope::Group("g".into());
    let one = ("one", group(), vec![to(POD, 80)]);
    let two = ("two", group(), vec![to(POD, 80)]);
    assert_eq!(planned(&[one, two]).unwrap().len(), 1);
}

#[test]
fn links_form_no_circle() {
    let a = ("a", Scope::Container, vec![to("b", 80)]);
    let b = ("b", Scope::Container, vec![to("c", 80)]);
    let c = |links| ("c", Scope::Container, links);
    assert_eq!(
        planned(&[a.clone(), b.clone(), c(vec![])]).unwrap().len(),
        2
    );
    let error = planned(&[a, b, c(vec![to("a", 80)])]).unwrap_err();
    assert!(matches!(error, LinkError::Circle { .. }), "{error}");
}

#[test]
fn the_ceiling_bounds_links() {
    let (links, mut ceiling) = ([to(POD, 80)], Ceiling::default());
    let present = Present {
        name: "agent",
        network: &Scope::Container,
        links: &links,
    };
    plan(&[present], &Scope::Pod, &ceiling).unwrap();
    ceiling.set_links(Reach::None);
    let error = plan(&[present], &Scope::Pod, &ceiling).unwrap_err();
    assert!(matches!(error, LinkError::AboveCeiling { .. }), "{error}");
}

#[test]
fn a_table_has_an_end() {
    let links = |count: u16| (0..count).map(|n| to(POD, n + 1)).collect();
    assert_eq!(
        planned(&[("a", Scope::Container, links(1024))])
            .unwrap()
            .len(),
        1024
    );
    let error = planned(&[("a", Scope::Container, links(1025))]).unwrap_err();
    assert!(error.to_string().contains("1025 links"), "{error}");
}

prop_compose! {
    fn any_link()(to in any::<bool>(), peer in 0..4usize, port in 1..4u16, local in 1..4u16,
                  udp in any::<bool>()) -> Link {
        let direction = if to { Direction::To } else { Direction::From };
        let mut link = link(direction, [POD, "a", "b", "c"][peer], port, local);
        link.protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        link
    }
}

fn any_scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        3 => Just(Scope::Container),
        3 => Just(Scope::Pod),
        1 => Just(Scope::Node),
        2 => Just(Scope::Group("g".to_owned())),
        1 => Just(Scope::Target("a".to_owned())),
    ]
}

proptest! {
    #[test]
    fn whatever_is_planned_keeps_the_rules(
        containers in prop::collection::vec((any_scope(), prop::collection::vec(any_link(), 0..3)), 0..4),
    ) {
        let named: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .zip(containers)
            .map(|(name, (scope, links))| (name, scope, links))
            .collect();
        let Ok(planned) = planned(&named) else { return Ok(()) };
        let mut listening = std::collections::HashSet::new();
        for Planned { joined, .. } in &planned {
            prop_assert_ne!(&joined.from, &joined.to);
            prop_assert!(listening.insert((joined.from.clone(), joined.protocol, joined.port)));
            prop_assert!(!joined.exposed || joined.from == Network::Pod);
        }
        // Whoever follows the links comes to an end.
        for start in &planned {
            let mut at = start.joined.clone();
            let mut steps = 0;
            while let Some(next) = planned.iter().find(|next| {
                let next = &next.joined;
                (&next.from, next.protocol, next.port) == (&at.to, at.protocol, at.to_port)
            }) {
                at = next.joined.clone();
                steps += 1;
                prop_assert!(steps <= planned.len());
            }
        }
    }

    #[test]
    fn whoever_decides_links_in_whatever_order_a_port_leads_to_one_place_or_both_are_named(
        deciders in prop::collection::vec(prop::collection::vec(any_link(), 0..4), 0..4),
    ) {
        let decided: Vec<Vec<Link>> = (1..)
            .zip(deciders)
            .map(|(number, links)| {
                let named = |link| by(&format!("policy {number}"), link);
                links.into_iter().map(named).collect()
            })
            .collect();
        let contradict = |one: &Link, other: &Link| {
            one.entrance() == other.entrance() && one.words() != other.words()
        };
        let all = decided.concat();
        let wrong = all.iter().any(|one| all.iter().any(|other| contradict(one, other)));
        let mut links = Vec::new();
        let mut added = decided.into_iter().map(|further| add(&mut links, further, "agent"));
        match added.find_map(Result::err) {
            None => {
                prop_assert!(!wrong);
                // Nothing is lost, nothing is made up, nothing is there twice.
                for link in &all {
                    let same = links.iter().filter(|kept| kept.words() == link.words());
                    prop_assert_eq!(same.count(), 1);
                }
                prop_assert!(links.iter().all(|link| all.contains(link)));
            }
            Some(LinkError::Conflict { other, link, .. }) => {
                prop_assert!(contradict(&other, &link));
                prop_assert!(all.contains(&other) && all.contains(&link));
            }
            Some(error) => prop_assert!(false, "{}", error),
        }
    }
}

fn by(decider: &str, link: Link) -> Link {
    Link {
        by: decider.to_owned(),
        ..link
    }
}

#[test]
fn a_link_that_two_decide_is_the_first_one_s() {
    let first = link(Direction::To, "proxy", 8080, 3128);
    let mut links = vec![first.clone()];
    let further = [
        by("policy p", first.clone()),
        by("policy p", link(Direction::From, "proxy", 3128, 8080)),
        by("policy p", link(Direction::From, POD, 3128, 8080)),
    ];
    add(&mut links, further.clone(), "agent").unwrap();
    assert_eq!(links[0], first);
    assert_eq!(links[1..], further[1..]);
}

#[test]
fn two_links_that_come_in_at_one_port_are_both_named() {
    for (first, second, key) in [
        (
            link(Direction::To, POD, 1, 80),
            link(Direction::To, POD, 2, 80),
            "`local`",
        ),
        (
            link(Direction::From, POD, 80, 1),
            link(Direction::From, POD, 80, 2),
            "`port`",
        ),
    ] {
        let mut links = vec![by("policy p", first)];
        let said = add(&mut links, [by("policy q", second)], "agent");
        let said = said.unwrap_err().to_string();
        for words in ["container agent", "policy p", "policy q", key] {
            assert!(said.contains(words), "no {words} in {said}");
        }
        assert_eq!(links.len(), 1);
    }
}

#[test]
fn no_more_links_than_are_allowed_are_put_together() {
    let all = (1..=u16::try_from(MOST).unwrap() + 1).map(|port| link(Direction::To, POD, 80, port));
    let mut links = Vec::new();
    add(&mut links, all.clone().take(MOST), "agent").unwrap();
    let error = add(&mut links, all, "agent").unwrap_err();
    assert!(matches!(error, LinkError::TooMany { .. }), "{error}");
}
