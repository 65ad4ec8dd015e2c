//! Any order of commands and of a peer's messages: nothing panics, no window is exceeded, memory is
//! bounded, replies keep their order.

use proptest::prelude::*;
use tidegate_draw::cases;

use super::Peer;
use super::model::Model;
use super::op::{Op, op};
use crate::message::number;

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn any_order_is_served(ops in prop::collection::vec(op(), 1..200)) {
        let mut model = Model::new();
        for op in ops {
            match op {
                Op::OpenDirect { .. } | Op::OpenSession { .. } | Op::Confirm { .. }
                | Op::Fail { .. } | Op::Data { .. } | Op::Extended { .. } | Op::Adjust { .. }
                | Op::End { .. } | Op::Ask { .. } | Op::Global { .. } | Op::Raw(_) => {
                    model.peers(&op);
                }
                op => model.relays(op),
            }
            model.look();
            if model.peer.core.is_over() {
                break;
            }
        }
        // A goodbye, and nothing is kept but what may wait elsewhere, until the relay closes its channel.
        model.peer.core.disconnect(crate::DisconnectCode::ByApplication, "");
        model.look();
        model.close_all();
        prop_assert_eq!(model.budget.taken(), 0);
        prop_assert_eq!(model.peer.core.queued(), 0);
    }

    #[test]
    fn any_message_at_any_time_ends_well(
        messages in prop::collection::vec(
            (prop_oneof![Just(5u8), 50..54u8, 80..83u8, 90..101u8, any::<u8>()],
             prop::collection::vec(prop_oneof![Just(0u8), 0..8u8, any::<u8>()], 0..80)),
            1..60,
        ),
        inside in any::<bool>(),
    ) {
        let mut peer = Peer::new();
        if inside {
            peer.enter();
            peer.opened(1, 10, 10);
        }
        for (kind, rest) in messages {
            let message = [&[kind][..], &rest].concat();
            let ended = peer.hand(&message).is_err();
            let heard = peer.heard();
            prop_assert!(heard.len() <= 8);
            if ended && kind != number::DISCONNECT {
                prop_assert_eq!(heard.last().map(|it| it[0]), Some(number::DISCONNECT));
                prop_assert!(peer.core.is_over());
            }
        }
    }
}
