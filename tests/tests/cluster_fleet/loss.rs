//! A node that dies, and one that is cut off and comes back.

use std::time::Instant;

use tidegate_tests::fleet::{Fleet, ROLLOUT, Release};
use tidegate_tests::manifest::SupportWindow;
use tidegate_tests::{eventually, long};

use super::{IN, open, running};

/// How a node is lost: its name, the deed, and what brings the node back.
type Loss = (&'static str, fn(&Fleet), fn(&Fleet));

/// Minutes long, so for `just fleet-long`.
#[test]
fn a_lost_node_takes_its_own_sessions_only() {
    if !long() {
        return;
    }
    let Some(fleet) = Fleet::install(2, 2, Release::This) else { return };
    fleet.await_pods(2);
    fleet.user("alice");
    let mut near = fleet.terminal("kiosk-17", 20_017, &["alice"]);
    fleet.attach(&mut near, "node-1");
    let mut far = fleet.terminal("kiosk-18", 20_018, &["alice"]);
    open(&fleet, "berlin", "kiosk-17");
    let window = SupportWindow::open("hamburg", "alice", "kiosk-18");
    let window = SupportWindow { max_session_duration: Some("40s".to_owned()), ..window };
    fleet.declare(&window);
    let [here, there] = ["node-1", "node-2"].map(|node| fleet.staff("alice", node));
    let mine = fleet.await_session(&here, "kiosk-17", IN);

    let losses: [Loss; 2] = [
        ("killed", |fleet| fleet.nodes.kill_node(2), |fleet| fleet.nodes.start_node(2)),
        ("cut off", |fleet| fleet.nodes.cut_node(2), |fleet| fleet.nodes.heal_node(2)),
    ];
    for (size, (loss, lose, mend)) in (2..).zip(losses) {
        fleet.attach(&mut far, "node-2");
        let theirs = fleet.await_session(&there, "kiosk-18", IN);
        eventually("both records", IN, || running(&fleet).len() == 2);
        lose(&fleet);
        let lost = Instant::now();
        // The fleet is back to its size on the node that is left.
        eventually("the fleet's size on one node", ROLLOUT, || {
            let pods = fleet.pods();
            pods.len() == size && pods.iter().all(|pod| pod.ready && pod.node == "node-1")
        });
        eprintln!("{loss}: the fleet was back to its size after {:?}", lost.elapsed());
        assert!(mine.is_running(), "{loss}: the other node's session ended: {}", mine.stderr());
        // Nobody can say of a silent relay that it has ended but its deadline.
        let by = fleet.await_ended("kiosk-18", ROLLOUT);
        eprintln!("{loss}: its session ended by {by}, after {:?}", lost.elapsed());
        assert_eq!(by, "Deadline", "{loss}");
        mend(&fleet);
        let mended = Instant::now();
        far.client = None;
        drop(theirs);
        // All replicas are on node-1 now; one more goes to the other node.
        fleet
            .nodes
            .kubectl(&["wait", "--for=condition=Ready", "node/node-2", "--timeout=55s"])
            .ok();
        let more = format!("--replicas={}", size + 1);
        fleet.nodes.kubectl(&["scale", "relay/eu", &more]).ok();
        fleet.await_pods(size + 1);
        eprintln!("{loss}: one replica more, {:?} after it was mended", mended.elapsed());
        // What its relay has to say when it is back changes nothing.
        eventually("the lost pods are gone", ROLLOUT, || {
            let all = fleet.get(&["pods", "-l", "tidegate.dev/relay=eu"]);
            all["items"].as_array().is_some_and(|all| all.len() == size + 1)
        });
        assert_eq!(fleet.await_ended("kiosk-18", IN), by, "{loss}: after its return");
        assert!(mine.is_running(), "{loss}: the other node's session ended: {}", mine.stderr());
    }
}
