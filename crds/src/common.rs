//! Field types that several kinds share, and the schemas of text fields.
//!
//! In Rust a text field is a `String`; its schema comes from one of the marker types here
//! (`#[schemars(with = "…")]`), so that each rule, bound and sentence is written once.

use std::borrow::Cow;
use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Declares a marker type that stands for a text field's schema.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident = { $($schema:tt)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", $($schema)* })
            }
        }

        // The copy of each spec from which KubeSchema derives wants every type to serialise.
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                match *self {}
            }
        }
    };
}

text! {
    /// An RFC 1123 label: the form of every name that Tidegate knows.
    Name = {
        "minLength": 1,
        "maxLength": 63,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",
            "message": "must be 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
        }],
    }
}

text! {
    /// A login as typed: `alice`, or `bob.acme` for the tenant acme's own.
    LoginName = {
        "minLength": 1,
        "maxLength": 127,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?([.][a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$')",
            "message": "must be a login as it is typed: alice, or bob.acme for a user of the tenant namespace acme",
        }],
    }
}

text! {
    /// An instant, strict RFC 3339. In CEL it is a timestamp, by its format.
    Time = {
        "format": "date-time",
        "maxLength": 35,
        "pattern": "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$",
    }
}

text! {
    /// A civil date, YYYY-MM-DD.
    CivilDate = {
        "format": "date",
        "maxLength": 10,
        "pattern": "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$",
    }
}

/// The CEL form of a duration in whole hours, minutes and seconds, between two bounds.
macro_rules! span {
    ($(#[$doc:meta])* $name:ident, $from:literal, $to:literal) => {
        text! {
            $(#[$doc])*
            $name = {
                "minLength": 2,
                "maxLength": 16,
                "x-kubernetes-validations": [{
                    "rule": concat!(
                        "self.matches('^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,6}s)?$') && ",
                        "duration(self) >= duration('", $from, "') && ",
                        "duration(self) <= duration('", $to, "')",
                    ),
                    "message": concat!(
                        "must be whole hours, minutes and seconds such as 2h30m, from ",
                        $from, " to ", $to,
                    ),
                }],
            }
        }
    };
}

span!(
    /// How long an occurrence lasts.
    OccurrenceSpan, "1m", "168h"
);
span!(
    /// A bound on a session.
    SessionSpan, "1s", "168h"
);
span!(
    /// How old policy may be.
    AgeSpan, "10s", "168h"
);
span!(
    /// How long records are kept.
    RetentionSpan, "1h", "8784h"
);
span!(
    /// A time to live of a DNS record.
    TtlSpan, "1s", "24h"
);
span!(
    /// How long a drain waits.
    DrainSpan, "0s", "24h"
);

text! {
    /// An IANA zone, by its exact name. Go's own readers take `Local`, "", `posixrules`, `posix/…` and
    /// offsets too; the first rule keeps them out. (`getHours` fails on a name that is no zone.)
    ZoneName = {
        "minLength": 1,
        "maxLength": 64,
        "x-kubernetes-validations": [
            {
                "rule": "self.matches('^[A-Z][A-Za-z0-9_+-]*(/[A-Za-z][A-Za-z0-9_+-]*){0,2}$') && !(self in ['Local', 'Factory']) && timestamp('2020-01-01T00:00:00Z').getHours(self) >= 0",
                "message": "must be an IANA time zone such as Europe/Berlin, in exact case",
            },
        ],
    }
}

/// One field of a cron expression: `*`, or a list of values and ranges; `*` and ranges may have a step.
/// A value with a step (`5/10`), an empty element and a name in another's field do not match.
macro_rules! cron_field {
    ($value:literal) => {
        concat!(
            "([*](/(0?[1-9]|[1-9][0-9]))?|",
            cron_item!($value),
            "(,",
            cron_item!($value),
            ")*)"
        )
    };
}

macro_rules! cron_item {
    ($value:literal) => {
        concat!($value, "(-", $value, "(/(0?[1-9]|[1-9][0-9]))?)?")
    };
}

text! {
    /// The five fields of crontab(5) and nothing else. Whether it ever fires is `compile`'s to say.
    CronText = {
        "minLength": 9,
        "maxLength": 128,
        "x-kubernetes-validations": [{
            "rule": concat!(
                "self.matches('^",
                cron_field!("(0?[0-9]|[1-5][0-9])"), "[[:blank:]]+",
                cron_field!("(0?[0-9]|1[0-9]|2[0-3])"), "[[:blank:]]+",
                cron_field!("(0?[1-9]|[12][0-9]|3[01])"), "[[:blank:]]+",
                cron_field!("(0?[1-9]|1[0-2]|(?i:JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC))"), "[[:blank:]]+",
                cron_field!("(0?[0-7]|(?i:SUN|MON|TUE|WED|THU|FRI|SAT))"),
                "$')",
            ),
            "message": "must be the five fields of crontab(5), minute hour day month weekday, such as 0 22 * * TUE,THU",
        }],
    }
}

text! {
    /// An SSH public key in the form of authorized_keys, without options.
    PublicKey = {
        "minLength": 16,
        "maxLength": 4096,
        "x-kubernetes-validations": [
            {
                "rule": "!self.startsWith('sk-')",
                "message": "must not be a security key (sk-): they are not supported yet; use ssh-ed25519, ecdsa or RSA from 2048 bits",
            },
            {
                "rule": "self.startsWith('sk-') || self.matches('^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) AAAA[A-Za-z0-9+/]+={0,2}( [^[:cntrl:]]*)?$')",
                "message": "must be one SSH public key such as ssh-ed25519 AAAA... comment, without options",
                // Then nobody repeats the value in a sentence or a log: it may be a private key.
                "reason": "FieldValueForbidden",
            },
        ],
    }
}

text! {
    /// An address range, or one address.
    AddressRange = {
        "minLength": 2,
        "maxLength": 49,
        "x-kubernetes-validations": [{
            "rule": "isIP(self) || (isCIDR(self) && cidr(self) == cidr(self).masked())",
            "message": "must be an address or a range such as 203.0.113.0/24, with no bits set beyond the prefix",
        }],
    }
}

text! {
    /// A domain name in lower case, without a trailing dot.
    Domain = {
        "minLength": 3,
        "maxLength": 189,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?([.][a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$')",
            "message": "must be a domain name in lower case such as support.example.com, without a trailing dot",
        }],
    }
}

text! {
    /// A case number: printable ASCII, since sentences quote it.
    CaseNumber = {
        "minLength": 1,
        "maxLength": 64,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^[!-~]([ -~]*[!-~])?$')",
            "message": "must be printable ASCII, without spaces at its ends",
        }],
    }
}

text! {
    /// A web address.
    WebAddress = {
        "maxLength": 512,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^https?://[!-~]+$')",
            "message": "must be an http or https address",
        }],
    }
}

text! {
    /// A quantity of bytes, such as 200Mi.
    ByteQuantity = {
        "maxLength": 16,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^[1-9][0-9]{0,11}(k|M|G|T|Ki|Mi|Gi|Ti)?$')",
            "message": "must be a number of bytes such as 200Mi",
        }],
    }
}

text! {
    /// One line of text for people.
    Line = { "minLength": 1, "maxLength": 253 }
}

text! {
    /// A value of a label.
    LabelValue = { "maxLength": 63 }
}

text! {
    /// A key of a label.
    LabelKey = { "minLength": 1, "maxLength": 317 }
}

text! {
    /// Text that a program writes and reads, such as a certificate or a signature.
    Blob = { "maxLength": 65536 }
}

/// Selects by labels, as everywhere in Kubernetes: all of them must hold. Never empty.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)"
).message("must name at least one label"))]
pub struct Selector {
    /// Labels that must have exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, LabelValue>", extend("maxProperties" = 32))]
    pub match_labels: BTreeMap<String, String>,
    /// Expressions that must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub match_expressions: Vec<SelectorExpression>,
}

/// One requirement on a label.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0"
).message("must have values with In and NotIn, and none with Exists and DoesNotExist").field_path(".values"))]
pub struct SelectorExpression {
    /// The label's key.
    #[schemars(with = "LabelKey")]
    pub key: String,
    /// How the label relates to the values.
    pub operator: SelectorOperator,
    /// The values for In and NotIn; none for Exists and DoesNotExist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<LabelValue>", length(max = 64))]
    pub values: Vec<String>,
}

/// How a label relates to values.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectorOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// For consent and code: `Required` is the stricter one.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Required,
    NotRequired,
}

pub(crate) fn required() -> Need {
    Need::Required
}

pub(crate) fn not_required() -> Need {
    Need::NotRequired
}

/// What an accepted object has for itself: the operator's word on who was first, so that it outlives a
/// restart and a bad edit. Its name is its own without being listed.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Holds {
    /// The generation that was accepted.
    #[schemars(range(min = 0))]
    pub generation: i64,
    /// Fingerprints of its keys, such as SHA256:J0mVgCd...
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Line>", length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub keys: Vec<String>,
    /// Its listen ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<PortNumber>", length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub listen_ports: Vec<i32>,
}

/// The schema of a port.
pub enum PortNumber {}

impl JsonSchema for PortNumber {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PortNumber".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": 65535 })
    }
}

impl Serialize for PortNumber {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        match *self {}
    }
}
