//! An account counts what was burnt in it: by a process, by what that left behind, and by what
//! entered a cgroup below.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::process::Command;
use std::time::Duration;

use husk_engine::account::Account;

/// Burns processor time until this process's own reaches so many ticks of 10 ms; `orphan` lets a
/// grandchild do it, which nobody waits for.
fn burn(ticks: u32, orphan: bool) -> Command {
    let loop_ = format!(
        "while read -r _ _ _ _ _ _ _ _ _ _ _ _ _ user system _ </proc/self/stat && \
         [ $((user + system)) -lt {ticks} ]; do :; done"
    );
    let script = if orphan {
        format!("(sh -c '{loop_}' &) ; exit 0")
    } else {
        loop_
    };
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    command
}

/// One test: a process is in one cgroup at a time, with all its threads.
#[tokio::test]
async fn what_is_burnt_inside_is_counted_whoever_waits_for_it() {
    let path = format!("/husk-account-{}", std::process::id());
    let account = Account::create(&path).unwrap();
    for orphan in [false, true] {
        let before = account.used().unwrap();
        let guest = account.enter().unwrap();
        let mut child = burn(20, orphan).spawn().unwrap();
        guest.leave().unwrap();
        child.wait().unwrap();
        // The orphan burns on after its parent has ended.
        while !account.processes().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let used = account.settled().await.unwrap() - before;
        assert!(
            used > Duration::from_millis(180) && used < Duration::from_millis(400),
            "{used:?} of 200 ms, orphan: {orphan}"
        );
    }
    assert_eq!(account.processes().unwrap(), Vec::<i32>::new());

    let before = account.used().unwrap();
    burn(20, false).status().unwrap();
    assert_eq!(account.used().unwrap(), before, "burnt outside");
    account.remove().await.unwrap();
}
