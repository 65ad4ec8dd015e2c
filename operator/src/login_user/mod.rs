//! LoginUser: whether it is accepted, and the keys that are its own. Pure; `world` runs it.

use tidegate_crds::common::Holds;
use tidegate_crds::login_user::LoginUserStatus;

use crate::holding::Holding;
pub use crate::holding::status;

impl Holding for LoginUserStatus {
    fn of(holds: Option<Holds>) -> Self {
        Self { holds, ..Self::default() }
    }
}
