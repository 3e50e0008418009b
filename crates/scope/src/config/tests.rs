use proptest::prelude::*;

use super::*;
use crate::REQUEST;
use crate::links::{Direction, PROTOCOLS, Peer, Protocol};

const EXAMPLE: &str = include_str!("../../../../examples/config.toml");

fn parse(text: &str) -> Config {
    Config::parse("husk.toml", text).unwrap()
}

fn complaint(text: &str) -> String {
    Config::parse("husk.toml", text).unwrap_err().to_string()
}

fn assigned(config: &Config, container: &str) -> Vec<(Kind, Scope)> {
    let assignments = config.assignments(container).into_iter();
    assignments.map(|a| (a.kind, a.scope)).collect()
}

/// The example with every setting switched on.
fn example_in_use() -> String {
    EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn no_configuration_and_the_example_as_it_stands_change_nothing() {
    assert_eq!(parse(""), Config::default());
    assert_eq!(parse(EXAMPLE), Config::default());
    assert_eq!(Config::default().assignments("app"), []);
    let requested = Scopes::all(&Scope::Container);
    let plan = Config::default().plan("app", &requested).unwrap();
    assert!(plan.iter().all(|(_, planned)| planned.by == REQUEST));
}

#[test]
fn the_example_is_valid_once_switched_on_and_mentions_every_key() {
    let text = example_in_use();
    parse(&text);
    let document: toml::Table = text.parse().unwrap();
    let has = |path: &[&str]| {
        let (last, tables) = path.split_last().unwrap();
        let table = tables
            .iter()
            .try_fold(&document, |table, key| table.get(*key)?.as_table());
        let found = table.is_some_and(|table| table.contains_key(*last));
        assert!(found, "{} is not in examples/config.toml", path.join("."));
    };
    for key in KEYS {
        has(&[key]);
    }
    for kind in kind_names() {
        has(&["scopes", kind]);
        has(&["ceiling", kind]);
    }
    has(&["containers", "debugger", "scopes"]);
    has(&["containers", "agent", "links"]);
    for key in links::LINK_KEYS {
        let links = document["containers"]["agent"]["links"].as_array().unwrap();
        let mut tables = links.iter().filter_map(toml::Value::as_table);
        assert!(tables.any(|link| link.contains_key(key)), "{key}");
    }
    for word in PROTOCOLS.iter().chain(&REACHES) {
        assert!(EXAMPLE.contains(&format!("\"{word}\"")), "{word}");
    }
    for clock in CLOCKS {
        has(&["time", clock]);
    }
    has(&["ceiling", REQUESTS]);
    has(&["ceiling", LINKS]);
    for key in plugin::PLUGIN_KEYS {
        assert!(
            document["plugin"][0].as_table().unwrap().contains_key(key),
            "{key}"
        );
    }
    for word in audit::RECORDS {
        assert!(EXAMPLE.contains(&format!("\"{word}\"")), "{word}");
    }
    for key in audit::AUDIT_KEYS {
        has(&["audit", key]);
    }
    for word in plugin::MODES.iter().chain(&plugin::ON_ERROR) {
        assert!(EXAMPLE.contains(&format!("\"{word}\"")), "{word}");
    }
    for word in SCOPE_WORDS {
        assert!(EXAMPLE.contains(&format!("\"{word}\"")), "{word}");
    }
    for width in Width::ALL {
        assert!(EXAMPLE.contains(&format!("\"{}\"", width.name())));
    }
}

#[test]
fn the_audit_record_is_where_and_as_large_as_it_says() {
    let hour = std::time::Duration::from_secs(3600);
    let audit = parse("").audit;
    assert_eq!(audit.dir, std::path::Path::new("/var/log/husk"));
    assert_eq!(
        (audit.max_size, audit.max_age, audit.keep),
        (16 << 20, hour * 168, 8)
    );
    assert_eq!((audit.on_error, audit.journal), (OnError::Ignore, false));
    let said = "[audit]\ndir = '/a'\nmax-size = '64KiB'\nmax-age = '1h'\nkeep = 1\n\
                on-error = 'deny'\njournal = true\n\
                record = 'questions'\nrecord-env = true\nmax-questions = '1MiB'";
    let said = parse(said).audit;
    assert_eq!(
        said,
        Audit {
            dir: "/a".into(),
            max_size: 64 << 10,
            max_age: hour,
            keep: 1,
            on_error: OnError::Deny,
            journal: true,
            record: Record::Questions,
            record_env: true,
            max_questions: 1 << 20,
        }
    );
    for (text, words) in [
        ("dir = 'log'", "`log` is not an absolute path"),
        ("max-size = '1KiB'", "not a size from 64KiB to 1GiB"),
        ("max-age = '1s'", "from \"1m\" to \"366d\""),
        ("keep = 0", "`0` is not a number of files, from 1 to 1000"),
        ("keep = '8'", "must be a number of files"),
        ("on-error = 'denied'", "did you mean `deny`?"),
        ("journal = 'yes'", "must be true or false"),
        (
            "record = 'all'",
            "is not record; use one of answers, questions",
        ),
        ("max-questions = '1KiB'", "not a size from 1MiB to 64GiB"),
        ("max-files = 3", "not a key of [audit]"),
    ] {
        let said = complaint(&format!("[audit]\n{text}"));
        assert!(
            said.contains(words) && said.contains("husk.toml:2:"),
            "{said}"
        );
    }
}

#[test]
fn a_containers_own_table_is_stronger() {
    let config = parse(
        "[scopes]\nnetwork = 'container'\nuts = 'container'\n\
         [containers.app.scopes]\nnetwork = 'pod'\n[containers.'my app']\n",
    );
    assert_eq!(
        assigned(&config, "app"),
        [(Kind::Network, Scope::Pod), (Kind::Uts, Scope::Container)]
    );
    assert_eq!(
        assigned(&config, "other"),
        [
            (Kind::Network, Scope::Container),
            (Kind::Uts, Scope::Container)
        ]
    );
    assert!(config.assignments("app").iter().all(|a| a.by == BY));
}

#[test]
fn a_target_for_all_leaves_the_target_out() {
    let config = parse("[scopes]\npid = 'target:app'");
    assert_eq!(assigned(&config, "app"), []);
    assert_eq!(
        assigned(&config, "sidecar"),
        [(Kind::Pid, Scope::Target("app".into()))]
    );
}

#[test]
fn the_sandbox_has_what_some_container_may_be_assigned() {
    let config = parse(
        "[scopes]\ncgroup = 'pod'\nnetwork = 'container'\nuser = 'pod'\n\
         [containers.a.scopes]\ncgroup = 'pod'\nipc = 'group:g'\npid = 'target:b'\n\
         [containers.b.scopes]\nipc = 'group:g'\ntime = 'pod'",
    );
    assert_eq!(
        config.sandbox_kinds(),
        [
            (Kind::Cgroup, Scope::Pod),
            (Kind::Ipc, Scope::Group("g".into())),
            (Kind::Time, Scope::Pod)
        ]
    );
}

#[test]
fn offsets_reach_the_plan() {
    let config = parse("[scopes]\ntime = 'container'\n[time]\nmonotonic = '-1h30m500ms'");
    let offset = Offset {
        secs: -5401,
        nanosecs: 500_000_000,
    };
    assert_eq!(config.offsets.monotonic, Some(offset));
    assert_eq!(config.offsets.boottime, None);
    let plan = config.plan("app", &Scopes::all(&Scope::Container)).unwrap();
    assert_eq!(plan.offsets(), &config.offsets);
}

#[test]
fn the_ceiling_is_read() {
    let config = parse("[ceiling]\nnetwork = 'pod'\npid = 'group'\nrequests = ['network']");
    assert_eq!(config.ceiling.widest(Kind::Network), Some(Width::Pod));
    assert_eq!(config.ceiling.widest(Kind::Pid), Some(Width::Group));
    assert_eq!(config.ceiling.widest(Kind::Ipc), None);
    let mut requested = Scopes::all(&Scope::Node);
    requested[Kind::Mount] = Scope::Container;
    let refusal = config.plan("app", &requested).unwrap_err().to_string();
    assert_eq!(
        refusal,
        "network: containerd asked for NODE: above the ceiling POD of the handler's configuration"
    );
}

#[test]
fn complaints_say_where_and_what_would_be_right() {
    for (text, expected) in [
        (
            "\n[scopes]\nnetwrok = 'pod'",
            "husk.toml:3:1: `netwrok` is not a key of [scopes]; did you mean `network`?",
        ),
        (
            "[scpes]",
            "husk.toml:1:2: `scpes` is not a key of the configuration; did you mean `scopes`?",
        ),
        (
            "xyz = 1",
            "husk.toml:1:1: `xyz` is not a key of the configuration; use one of scopes, \
             containers, time, users, ceiling, plugin, audit, seccomp-profiles",
        ),
        (
            "[scopes]\nuts = 'contianer'",
            "husk.toml:2:7: `contianer` is not a scope; did you mean `container`?",
        ),
        (
            "[scopes]\nuts = 'group:'",
            "husk.toml:2:7: `group:` is not a scope; did you mean `group:NAME`?",
        ),
        (
            "scopes = { 'uts' = true }",
            "husk.toml:1:20: `uts` is true or false; it must be a scope",
        ),
        (
            "scopes = []",
            "husk.toml:1:10: `scopes` is an array; it must be a table",
        ),
        (
            "[containers.app]\nscope = {}",
            "husk.toml:2:1: `scope` is not a key of [containers.app]; did you mean `scopes`?",
        ),
        (
            "[containers.app.scopes]\npid = 'target:app'",
            "husk.toml:1:1: container app cannot be its own target for pid",
        ),
        (
            "# é\n[containers.app.scopes]\n'uts' = 'pod' \nmount = 'pod'",
            "husk.toml:4:9: mount cannot be POD: a container has its own root filesystem and so \
             its own mount namespace; share a volume instead",
        ),
        (
            "[scopes]\ncgroup = 'group:a'",
            "husk.toml:2:10: cgroup cannot be GROUP(a): a cgroup namespace is the cgroup that \
             looks like the root, and a group has none of its own; use POD",
        ),
        (
            "[scopes]\npid = 'node'\n[ceiling]\npid = 'pod'",
            "husk.toml:2:7: pid cannot be NODE: [ceiling] allows no more than POD",
        ),
        (
            "[ceiling]\npid = 'group:a'",
            "husk.toml:2:7: `group:a` is not a ceiling; did you mean `group`?",
        ),
        (
            "[ceiling]\nrequests = ['pid']",
            "husk.toml:2:13: requests for pid have no ceiling; add `pid = …` to [ceiling]",
        ),
        (
            "[ceiling]\npid = 'pod'\nrequests = ['pids']",
            "husk.toml:3:13: `pids` is not a kind of namespace; did you mean `pid`?",
        ),
        (
            "[scopes]\ntime = 'pod'\n[time]\nboottime = 60",
            "husk.toml:4:12: `boottime` is a number; it must be a duration in quotes, such as \
             \"7d\"",
        ),
        (
            "[scopes]\ntime = 'pod'\n[time]\nboottime = '1w'",
            "husk.toml:4:12: `1w` is not a duration: use whole numbers with units d h m s ms us \
             ns, such as `7d` or `-1h30m`",
        ),
        (
            "[scopes]\ntime = 'pod'\n[time]\nboot = '1d'",
            "husk.toml:4:1: `boot` is not a key of [time]; did you mean `boottime`?",
        ),
        (
            "é = 'é' é",
            "husk.toml:1:9: unexpected key or value, expected newline, `#`",
        ),
    ] {
        let message = complaint(text);
        assert_eq!(message, expected, "{text}");
    }
}

#[test]
fn clocks_without_a_time_namespace_are_refused() {
    assert!(complaint("[time]\nboottime = '1d'").contains("add `time = \"container\"`"));
}

#[test]
fn durations() {
    for (text, secs, nanosecs) in [
        ("0s", 0, 0),
        ("7d", 604_800, 0),
        ("1h30m", 5_400, 0),
        ("1m1ms1us1ns", 60, 1_001_001),
        ("-1ns", -1, 999_999_999),
    ] {
        assert_eq!(text.parse(), Ok(Offset { secs, nanosecs }), "{text}");
    }
    for text in ["", "-", "7", "s", "1.5s", "+1s", " 1s", "1s ", "--1s", "1é"] {
        assert!(text.parse::<Offset>().is_err(), "{text}");
    }
    let error = "999999999999d".parse::<Offset>().unwrap_err();
    assert!(error.contains("the kernel's limit"), "{error}");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in ".*", at in 0..example_in_use().len()) {
        let _ = Config::parse("husk.toml", &text);
        let mut example = example_in_use();
        if example.is_char_boundary(at) {
            example.insert_str(at, &text);
        }
        let _ = Config::parse("husk.toml", &example);
    }
}

#[test]
fn a_plugin_has_defaults_and_settings_as_json() {
    let config = parse(
        "[[plugin]]\nname = \"gate\"\npath = \"/p.wasm\"\n\
         [plugin.settings]\nallow = [\"sh\", 1, true]\nnested.deep = 1.5\n\
         [[plugin]]\nname = \"watch\"\npath = \"/w.wasm\"\nmode = \"monitor\"\non-error = \"ignore\"\n\
         deadline = \"1s\"\nmemory = \"128MiB\"\n",
    );
    let [gate, watch] = &config.plugins[..] else {
        panic!("two plugins")
    };
    assert_eq!((gate.mode, gate.on_error), (Mode::Enforce, OnError::Deny));
    assert_eq!(gate.deadline, std::time::Duration::from_millis(50));
    assert_eq!(gate.memory, 64 << 20);
    assert_eq!(
        gate.settings,
        r#"{"allow":["sh",1,true],"nested":{"deep":1.5}}"#
    );
    assert_eq!(
        (watch.mode, watch.on_error),
        (Mode::Monitor, OnError::Ignore)
    );
    assert_eq!(watch.deadline, std::time::Duration::from_secs(1));
    assert_eq!(watch.memory, 128 << 20);
    assert_eq!(watch.settings, "{}");
}

#[test]
fn a_bad_plugin_table_says_what_is_wrong() {
    let with = |rest: &str| {
        complaint(&format!(
            "[[plugin]]\nname = \"gate\"\npath = \"/p.wasm\"\n{rest}"
        ))
    };
    assert_eq!(
        complaint("[[plugin]]\nname = \"gate\"\n"),
        "husk.toml:1:1: [[plugin]] needs the key `path`"
    );
    for (rest, words) in [
        ("pathe = \"/x\"", "did you mean `path`?"),
        ("mode = \"enforced\"", "did you mean `enforce`?"),
        ("deadline = \"6s\"", "from \"1ms\" to \"5s\""),
        ("deadline = \"-1s\"", "from \"1ms\" to \"5s\""),
        ("memory = \"64MB\"", "not a size"),
        ("sha256 = \"abc\"", "64 hexadecimal digits"),
        (
            "settings.when = 2026-01-01",
            "something that JSON can express",
        ),
        (
            "[[plugin]]\nname = \"gate\"\npath = \"/q.wasm\"",
            "two plugins are called `gate`",
        ),
    ] {
        let complaint = with(rest);
        assert!(complaint.contains(words), "{rest}: {complaint}");
    }
    assert!(
        complaint("[[plugin]]\nname = \"a\"\npath = \"p.wasm\"").contains("not an absolute path")
    );
    assert!(complaint("[seccomp-profiles]\nstrict = 1").contains("must be a path in quotes"));
}

#[test]
fn links_are_read() {
    let config = parse(
        "[[containers.agent.links]]\nto = 'proxy'\nport = 8080\nlocal = 3128\n\
         [[containers.agent.links]]\nfrom = 'pod'\nport = 53\nprotocol = 'udp'\n",
    );
    let link = |direction, peer, port, local, protocol| Link {
        direction,
        peer,
        port,
        local,
        protocol,
        by: BY.to_owned(),
    };
    let proxy = Peer::Container("proxy".to_owned());
    assert_eq!(
        config.links("agent"),
        [
            link(Direction::To, proxy, 8080, 3128, Protocol::Tcp),
            link(Direction::From, Peer::Pod, 53, 53, Protocol::Udp),
        ]
    );
    assert_eq!(config.links("proxy"), []);
    assert_eq!(config.assignments("agent"), []);
}

#[test]
fn a_bad_link_is_an_error_that_says_where_and_what_would_be_right() {
    let of = |lines: &str| complaint(&format!("[[containers.agent.links]]\n{lines}\n"));
    for (lines, expected) in [
        (
            "too = 'proxy'\nport = 1",
            "husk.toml:2:1: `too` is not a key of [containers.agent.links]; did you mean `to`?",
        ),
        (
            "port = 1",
            "husk.toml:1:1: [[links]] needs the key `to` or `from`",
        ),
        (
            "to = 'proxy'",
            "husk.toml:1:1: [[links]] needs the key `port`",
        ),
        (
            "to = 'proxy'\nport = 0",
            "husk.toml:3:8: `0` is not a port, from 1 to 65535",
        ),
        (
            "to = 'proxy'\nport = -1",
            "husk.toml:3:8: `-1` is not a port, from 1 to 65535",
        ),
        (
            "to = 'proxy'\nport = 65536",
            "husk.toml:3:8: `65536` is not a port, from 1 to 65535",
        ),
        (
            "to = 'proxy'\nport = '80'",
            "husk.toml:3:8: `port` is a string; it must be a port, from 1 to 65535",
        ),
        (
            "to = 'proxy'\nport = 1\nlocal = 99999999999999999999999",
            "husk.toml:4:9: `99999999999999999999999` is not a port, from 1 to 65535",
        ),
        (
            "to = 'agent'\nport = 1",
            "husk.toml:2:6: container agent cannot have a link with itself",
        ),
        (
            "to = ''\nport = 1",
            "husk.toml:2:6: a link needs the name of a container, or \"pod\"",
        ),
        (
            "to = 'a'\nfrom = 'b'\nport = 1",
            "husk.toml:3:8: a link leads one way: use `to` or `from`, or a link for each of them",
        ),
        (
            "to = 'a'\nport = 1\nprotocol = 'tpc'",
            "husk.toml:4:12: `tpc` is not a protocol; did you mean `tcp`?",
        ),
        (
            "to = 'a'\nport = 1\n[[containers.agent.links]]\nto = 'b'\nport = 1",
            "husk.toml:4:1: container agent has two links with one port: the link to tcp port 1 of container b, decided by configuration",
        ),
    ] {
        assert_eq!(of(lines), expected);
    }
    assert_eq!(
        complaint("[ceiling]\nlinks = 'none'\n[[containers.a.links]]\nto = 'pod'\nport = 1\n"),
        "husk.toml:3:1: container a cannot have links: [ceiling] says links = \"none\""
    );
    assert_eq!(
        complaint("[ceiling]\nlinks = 'nonee'\n"),
        "husk.toml:2:9: `nonee` is not a ceiling of links; did you mean `none`?"
    );
}
