//! The definitions on a real API server: what it makes of manifests is what `manifest` makes of them.
//!
//! One corpus, crds/tests/manifests: `good` is taken by both, `bad` is refused by both with the same fields, and what
//! stands in `compile` is valid by the schema and refused by `compile` (the operator says so in the object's status).

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_crds::manifest::{self, Kind, Read, Rule, Severity};
use tidegate_tests::Proc;
use tidegate_tests::cluster::ControlPlane;

const CALL: Duration = Duration::from_mins(1);

/// An API server with the definitions, and two namespaces.
struct Server {
    plane: &'static ControlPlane,
    /// `kubectl proxy`, which lets plain HTTP in.
    port: u16,
    _proxy: Proc,
}

/// What the API server said.
#[derive(Debug)]
struct Answer {
    code: u16,
    message: String,
    /// The fields of its complaint.
    fields: BTreeSet<String>,
    body: Value,
}

impl Server {
    /// `None` says that it was left out, loudly.
    fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    fn start() -> Option<Self> {
        let plane = ControlPlane::shared()?;
        let yaml = root().join("crds/yaml");
        plane.kubectl(&["apply", "--server-side", "-f", yaml.to_str().unwrap()]).ok();
        plane
            .kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"])
            .ok();
        for namespace in ["acme", "fleet"] {
            plane.kubectl(&["create", "namespace", namespace]).ok();
        }
        // It ends with this process, whose end closes its standard input.
        let kubectl = plane.kubectl_command();
        let mut command = Command::new("sh");
        command.args(["-c", "\"$0\" proxy --port=0 & cat >&2; kill $!; wait"]);
        command.arg(kubectl.get_program());
        command.env("KUBECONFIG", plane.kubeconfig());
        let proxy = Proc::start("kubectl proxy", &mut command);
        proxy.await_stdout("Starting to serve", CALL);
        let port = proxy.stdout().trim().rsplit(':').next().unwrap().parse().unwrap();
        Some(Self { plane, port, _proxy: proxy })
    }

    fn send(&self, method: &str, path: &str, media: &str, body: &str) -> Answer {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(CALL)).unwrap();
        // HTTP/1.0, so that the answer comes in one piece.
        let head = format!(
            "{method} /apis/tidegate.dev/v1alpha1/{path} HTTP/1.0\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n\
             Content-Type: {media}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(body.as_bytes()).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let message = body["message"].as_str().unwrap_or_default().to_owned();
        let causes = body["details"]["causes"].as_array().into_iter().flatten();
        let mut fields: BTreeSet<String> = causes
            .filter(|cause| {
                // Not a finding: what waits for the others.
                let message = cause["message"].as_str().unwrap_or_default();
                !message.contains("some validation rules were not checked")
            })
            .map(|cause| cause["field"].as_str().unwrap_or_default())
            // The scale subresource says once more what the schema says of `spec.replicas`; a rule of the whole
            // object has no field.
            .map(|field| field.trim_start_matches('.').replace("<nil>", ""))
            .collect();
        if message.contains("strict decoding error") {
            fields.extend(
                message
                    .split("field \"")
                    .skip(1)
                    .filter_map(|rest| rest.split('"').next().map(ToOwned::to_owned)),
            );
        }
        Answer { code, message, fields, body }
    }

    /// Would create it; nothing is stored.
    fn try_create(&self, file: &Path, text: &str) -> Answer {
        let json = file.extension().is_some_and(|extension| extension == "json");
        let media = if json { "application/json" } else { "application/yaml" };
        let path = format!("{}?dryRun=All&fieldValidation=Strict", collection(text));
        self.send("POST", &path, media, text)
    }

    fn create(&self, object: &Value) -> Value {
        let text = object.to_string();
        let path = format!("{}?fieldValidation=Strict", collection(&text));
        let answer = self.send("POST", &path, "application/json", &text);
        assert_eq!(answer.code, 201, "{}", answer.message);
        answer.body
    }

    /// Would change it; nothing is stored.
    fn try_change(&self, object: &Value, patch: &Value) -> Answer {
        let name = object["metadata"]["name"].as_str().unwrap();
        let path =
            format!("{}/{name}?dryRun=All&fieldValidation=Strict", collection(&object.to_string()));
        self.send("PATCH", &path, "application/merge-patch+json", &patch.to_string())
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The files of one folder of the corpus, with their text: those that are text.
fn corpus(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = root().join("crds/tests/manifests").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "yaml" || ext == "json"))
        .collect();
    files.sort();
    files
        .into_iter()
        .filter_map(|path| Some((path.clone(), std::fs::read_to_string(path).ok()?)))
        .collect()
}

/// What a word in front of a value stands for, in YAML and JSON alike.
fn word<'a>(text: &'a str, field: &str) -> Option<&'a str> {
    let end = |c: char| !c.is_ascii_alphanumeric() && c != '-';
    text.match_indices(field).find_map(|(at, _)| {
        let rest = text[at + field.len()..].trim_start_matches('"').strip_prefix(':')?;
        let rest = rest.trim_start_matches([' ', '"']);
        rest.split(end).next().filter(|word| !word.is_empty())
    })
}

/// `namespaces/acme/supportwindows`, of a manifest of a kind of ours.
fn collection(text: &str) -> String {
    let kind = word(text, "kind").unwrap();
    let plural =
        if kind == "Mesh" { "meshes".to_owned() } else { format!("{}s", kind.to_lowercase()) };
    format!("namespaces/{}/{plural}", word(text, "namespace").unwrap_or("default"))
}

/// The documents of a file that are one of a kind of ours. What else there is, only kubectl can send.
fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line.starts_with("---") {
            documents.push(String::new());
        } else if let Some(last) = documents.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    documents.retain(|text| word(text, "kind").is_some_and(|kind| Kind::own(kind).is_some()));
    documents
}

/// The fields of our findings, in the step at which the server stops.
fn fields(read: &Read) -> BTreeSet<String> {
    let strict = |rule| matches!(rule, Rule::UnknownField | Rule::DuplicateField);
    let errors: Vec<_> = read.findings.iter().filter(|f| f.severity == Severity::Error).collect();
    let decoding = errors.iter().any(|finding| strict(finding.rule));
    errors
        .iter()
        .filter(|finding| strict(finding.rule) == decoding)
        .map(|finding| finding.field.clone().unwrap_or_default())
        .collect()
}

/// Fields as both can name them. The server has no field for a rule about an object's name, and names all labels where
/// one is bad.
fn plain(fields: &BTreeSet<String>) -> BTreeSet<&str> {
    let plain = fields.iter().map(|field| match field.as_str() {
        "metadata.name" => "",
        field if field.starts_with("metadata.labels.") => "metadata.labels",
        field => field,
    });
    plain.collect()
}

/// Whether the server's fields are ours. Where we cut a field short, its beginning decides; of a key that is there
/// twice in YAML, the server knows the last part alone.
fn same(ours: &BTreeSet<String>, answer: &Answer) -> bool {
    if answer.message.contains("already set in map") {
        return ours.iter().all(|field| {
            let last = field.rsplit('.').next().unwrap_or_default();
            answer.message.contains(&format!("key \"{last}\" already set in map"))
        });
    }
    let (ours, theirs) = (plain(ours), plain(&answer.fields));
    ours.len() == theirs.len()
        && ours.iter().zip(&theirs).all(|(ours, theirs)| {
            ours == theirs || ours.strip_suffix("...").is_some_and(|cut| theirs.starts_with(cut))
        })
}

#[test]
fn the_server_and_the_reader_take_and_refuse_the_same() {
    let Some(server) = Server::shared() else { return };
    let mut wrong = Vec::new();
    let (mut taken, mut refused) = (0, 0);
    for folder in ["good", "bad"] {
        for (file, text) in corpus(folder) {
            let name = file.file_name().unwrap().to_str().unwrap();
            if BY_KUBECTL.contains(&name) {
                continue;
            }
            for text in documents(&text) {
                let read = manifest::read_by_schema(name, &text);
                if read.unreadable {
                    // No document that a client could send.
                    continue;
                }
                let answer = server.try_create(&file, &text);
                let ours = fields(&read);
                match (answer.code, ours.is_empty()) {
                    // Validation comes before the look whether there is one already.
                    (201 | 409, true) => taken += 1,
                    (400 | 422, false) if same(&ours, &answer) => refused += 1,
                    _ => wrong.push(format!(
                        "{folder}/{name}: {} {}\n    the server's fields: {:?}\n    ours: {ours:?}",
                        answer.code, answer.message, answer.fields
                    )),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(taken >= 14 && refused >= 120, "{taken} taken, {refused} refused");
}

/// A sentence that a person understands names the field and the rule.
#[test]
fn a_refusal_says_which_field_and_why() {
    let Some(server) = Server::shared() else { return };
    for (file, said) in [
        (
            "unknown-zone",
            "spec.schedule.recurring.timeZone: Invalid value: \"europe/berlin\": must be an IANA time zone",
        ),
        ("end-before-start", "spec.schedule.once.end: Invalid value: must be after start"),
        (
            "six-cron-fields",
            "spec.schedule.recurring.cron: Invalid value: \"0 0 22 * * TUE\": must be the five fields",
        ),
        (
            "login-with-comma",
            "spec.users.names[0]: Invalid value: \"alice,bob\": must be a login as it is typed",
        ),
        ("typo-suspend", "unknown field \"spec.suspnd\""),
        (
            "relay-neither-scale",
            "spec: Invalid value: must have exactly one of replicas and autoscaling",
        ),
    ] {
        let file = root().join(format!("crds/tests/manifests/bad/{file}.yaml"));
        let text = std::fs::read_to_string(&file).unwrap();
        let message = server.try_create(&file, &text).message;
        // CEL's messages follow the value that the server shows of an object.
        let plain = message.replace("Invalid value: \"object\": ", "Invalid value: ");
        assert!(plain.contains(said), "{}: {message}", file.display());
    }
}

#[test]
fn what_only_compile_can_see_is_taken_by_the_server() {
    let Some(server) = Server::shared() else { return };
    for (file, text) in corpus("compile") {
        let answer = server.try_create(&file, &text);
        let read = manifest::read("x.yaml", &text);
        let findings: Vec<_> =
            read.documents.iter().flat_map(manifest::Document::refusals).collect();
        assert!(!findings.is_empty(), "{}", file.display());
        // The server knows zones by the same rule; the library that reads rules for us does not.
        if file.ends_with("zone-misspelt.yaml") {
            let field = findings.iter().filter_map(|finding| finding.field.clone()).collect();
            assert_eq!((answer.code, answer.fields), (422, field), "{}", answer.message);
            assert!(
                answer.message.contains("unknown time zone Europe/Berln"),
                "{}",
                answer.message
            );
            continue;
        }
        assert_eq!(answer.code, 201, "{}: {}", file.display(), answer.message);
    }
}

/// Files whose documents no address fits: names that are none, versions that are not served, nothing at all.
const BY_KUBECTL: [&str; 9] = [
    "empty.yaml",
    "laughs.yaml",
    "latin1.yaml",
    "list.yaml",
    "names.yaml",
    "nul.yaml",
    "tabs.yaml",
    "text.yaml",
    "unknown-kind.yaml",
];

/// As kubectl sends them.
#[test]
fn what_kubectl_itself_reads_fares_as_with_the_reader() {
    let Some(server) = Server::shared() else { return };
    // Of the lists, the good one holds what kubectl reads back and would not write.
    let bad = BY_KUBECTL.map(|name| ("bad", name));
    for (folder, name) in bad.into_iter().chain([("good", "anchors.yaml"), ("good", "window.json")])
    {
        let file = root().join("crds/tests/manifests").join(folder).join(name);
        let file = file.to_str().unwrap();
        let arguments =
            ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", file];
        let call = server.plane.kubectl(&arguments);
        assert_eq!(
            call.code == Some(0),
            folder == "good",
            "{name}: {}{}",
            call.stdout,
            call.stderr
        );
    }
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    let metadata = json!({"name": name, "namespace": "acme"});
    json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

fn window(name: &str, one_time: bool) -> Value {
    let once = json!({"start": "2026-11-23T09:00:00+01:00", "end": "2026-11-23T11:00:00+01:00"});
    object(
        "SupportWindow",
        name,
        &json!({
            "users": {"names": ["alice"]}, "terminals": {"names": ["kiosk-17"]}, "services": ["ssh"],
            "schedule": {"once": once}, "oneTime": one_time,
        }),
    )
}

/// As RFC 7396 has it, and the API server.
fn merge(value: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    for (field, patch) in fields {
        if patch.is_null() {
            value.as_object_mut().unwrap().remove(field);
        } else {
            merge(&mut value[field], patch);
        }
    }
}

#[test]
fn what_may_not_change_is_refused_by_both() {
    let Some(server) = Server::shared() else { return };
    let relay = object("Relay", "eu", &json!({"meshRef": {"name": "prod"}, "replicas": 1}));
    let later = json!({"schedule": {"once": {"end": "2026-11-23T12:00:00+01:00"}}});
    let recurring = json!({"schedule": {"once": null, "recurring":
        {"cron": "0 22 * * TUE", "timeZone": "Europe/Berlin", "duration": "2h"}}});
    let autoscaling = json!({"minReplicas": 1, "maxReplicas": 2, "terminalsPerReplica": 100});
    let (once, often) = (window("once", true), window("often", false));
    let cases: Vec<(&Value, Value, &[&str])> = vec![
        (&once, later.clone(), &["spec.schedule"]),
        (
            &once,
            json!({"schedule": {"once": {"start": "2026-11-23T08:00:00+01:00"}}}),
            &["spec.schedule"],
        ),
        (&once, json!({"oneTime": false}), &["spec.oneTime"]),
        (&once, json!({"oneTime": null}), &["spec.oneTime"]),
        (
            &once,
            json!({"oneTime": false, "schedule": {"once": {"end": "2026-11-23T12:00:00+01:00"}}}),
            &["spec.oneTime", "spec.schedule"],
        ),
        (&once, json!({"suspend": true}), &[]),
        (&once, json!({"users": {"names": ["bob"]}}), &[]),
        (&often, later, &[]),
        (&often, recurring, &[]),
        (&often, json!({"oneTime": true}), &[]),
        (&relay, json!({"meshRef": {"name": "other"}}), &["spec.meshRef"]),
        (&relay, json!({"replicas": 3}), &[]),
        (&relay, json!({"replicas": null, "autoscaling": autoscaling}), &[]),
    ];
    for object in [&relay, &once, &often] {
        server.create(object);
    }
    for (object, patch, expected) in cases {
        let answer = server.try_change(object, &json!({"spec": patch}));
        let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
        assert_eq!(answer.code == 200, expected.is_empty(), "{patch}: {}", answer.message);
        assert_eq!(answer.fields, expected, "{patch}: {}", answer.message);

        let document = |value: &Value| {
            let read = manifest::read("x.json", &value.to_string());
            assert!(read.findings.is_empty(), "{:#?}", read.findings);
            read.documents.into_iter().next().unwrap()
        };
        let (old, mut edited) = (document(object), object.clone());
        merge(&mut edited["spec"], &patch);
        let findings =
            manifest::validate_update(old.reference.kind, &old.value, &document(&edited));
        let ours: BTreeSet<String> =
            findings.into_iter().filter_map(|finding| finding.field).collect();
        assert_eq!(ours, expected, "{patch}");
    }
}

#[test]
fn a_session_can_only_be_cut_and_a_claim_not_changed_at_all() {
    let Some(server) = Server::shared() else { return };
    let session = object(
        "SupportSession",
        "ss-1",
        &json!({
            "window": {"name": "w", "uid": "u"}, "opensAt": "2026-11-23T09:00:00Z", "user": "alice", "case": "48213",
            "terminal": "kiosk-17", "service": "ssh", "relayPod": "eu-0",
            "openedAt": "2026-11-23T09:00:00Z", "deadline": "2026-11-23T11:00:00Z",
        }),
    );
    let stored = server.create(&session);
    assert_eq!(stored["spec"]["cut"], false, "the default");
    for (field, value) in [
        ("opensAt", json!("2026-11-23T08:00:00Z")),
        ("user", json!("bob")),
        ("terminal", json!("kiosk-18")),
        ("service", json!("vnc")),
        ("case", json!("48214")),
        ("case", Value::Null),
        ("relayPod", json!("eu-1")),
        ("openedAt", json!("2026-11-23T09:00:01Z")),
        ("deadline", json!("2026-11-23T12:00:00Z")),
        ("window", json!({"uid": "v"})),
    ] {
        let answer = server.try_change(&session, &json!({"spec": {field: value}}));
        assert_eq!(
            (answer.code, answer.fields),
            (422, [format!("spec.{field}")].into()),
            "{}",
            answer.message
        );
    }
    let cut = json!({"spec": {"cut": true}});
    assert_eq!(server.try_change(&session, &cut).code, 200);
    server
        .plane
        .kubectl(&["-n", "acme", "patch", "ss", "ss-1", "--type=merge", "-p", &cut.to_string()])
        .ok();
    let back = server.try_change(&session, &json!({"spec": {"cut": false}}));
    assert_eq!((back.code, back.fields), (422, ["spec.cut".to_owned()].into()), "{}", back.message);

    // Relays find their own.
    let list = |selector: &str| {
        let found = server.plane.kubectl(&[
            "-n",
            "acme",
            "get",
            "ss",
            "-o",
            "name",
            "--field-selector",
            selector,
        ]);
        found.ok().stdout.lines().count()
    };
    assert_eq!(
        (list("spec.relayPod=eu-0"), list("spec.relayPod=eu-1"), list("spec.user=alice")),
        (1, 0, 1)
    );

    let claim = object(
        "SupportClaim",
        "sc-1",
        &json!({
            "window": {"namespace": "acme", "name": "w"}, "opensAt": "2026-11-23T09:00:00Z", "index": 0,
            "session": "ss-1", "relayPod": "eu-0", "reusable": true,
        }),
    );
    server.create(&claim);
    for patch in [json!({"index": 1}), json!({"reusable": false}), json!({"session": "ss-2"})] {
        let answer = server.try_change(&claim, &json!({"spec": patch}));
        assert_eq!(
            (answer.code, answer.fields),
            (422, ["spec".to_owned()].into()),
            "{}",
            answer.message
        );
    }
    let labelled = server.try_change(&claim, &json!({"metadata": {"labels": {"a": "b"}}}));
    assert_eq!(labelled.code, 200, "{}", labelled.message);
}

/// GitOps tools compare what they applied with what is there: a default that is filled in, or a number that is written
/// anew, would be a difference for ever.
#[test]
fn applying_the_same_again_changes_nothing() {
    let Some(server) = Server::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in corpus("good") {
        if documents(&text).is_empty()
            || text.contains("kind: List")
            || text.contains("kind: Namespace")
        {
            continue;
        }
        // Names of other tests are not in the way.
        let namespace = "applied";
        let text = text
            .replace("namespace: acme", "namespace: applied")
            .replace("namespace: fleet", "namespace: applied");
        let text = text.replace("\"namespace\": \"acme\"", "\"namespace\": \"applied\"");
        let path = folder.path().join(file.file_name().unwrap());
        std::fs::write(&path, &text).unwrap();
        let path = path.to_str().unwrap();
        let create = server.plane.kubectl(&["create", "namespace", namespace]);
        assert!(
            create.code == Some(0) || create.stderr.contains("AlreadyExists"),
            "{}",
            create.stderr
        );
        let versions = || {
            let get = [
                "get",
                "-f",
                path,
                "-o",
                "jsonpath={.metadata.resourceVersion}{.items[*].metadata.resourceVersion}",
            ];
            server.plane.kubectl(&get).ok().stdout
        };
        let apply = ["apply", "--server-side", "--field-manager=gitops", "-f", path];
        server.plane.kubectl(&apply).ok();
        let first = versions();
        server.plane.kubectl(&apply).ok();
        assert_eq!(versions(), first, "{path} was written again");
        let diff =
            server.plane.kubectl(&["diff", "--server-side", "--field-manager=gitops", "-f", path]);
        assert_eq!(diff.code, Some(0), "{path}: {}{}", diff.stdout, diff.stderr);
        // And as people do it.
        let diff = server.plane.kubectl(&["diff", "-f", path]);
        let noise = |line: &&str| {
            let line = line.trim_start();
            line.starts_with(['+', '-']) && !line.starts_with("+++") && !line.starts_with("---")
        };
        assert_eq!(diff.stdout.lines().filter(noise).collect::<Vec<_>>(), [""; 0], "{path}");
    }
}

#[test]
fn people_find_what_they_ask_for_first() {
    let Some(server) = Server::shared() else { return };
    let sw = window("columns", false);
    server.create(&sw);
    let status = json!({"status": {
        "nextOccurrences": [{"opensAt": "2026-11-23T08:00:00Z", "closesAt": "2026-11-23T10:00:00Z"}],
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Good", "message": "",
            "lastTransitionTime": "2026-11-01T00:00:00Z", "observedGeneration": 1}],
    }});
    let patch = status.to_string();
    server
        .plane
        .kubectl(&[
            "-n",
            "acme",
            "patch",
            "sw",
            "columns",
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ])
        .ok();
    let table = server.plane.kubectl(&["-n", "acme", "get", "sw", "columns"]).ok().stdout;
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(lines.next().unwrap(), ["NAME", "OPENS", "CLOSES", "ACCEPTED", "SUSPEND", "AGE"]);
    assert_eq!(
        lines.next().unwrap()[..5],
        ["columns", "2026-11-23T08:00:00Z", "2026-11-23T10:00:00Z", "True", "false"]
    );
    let explained =
        server.plane.kubectl(&["explain", "supportwindow.spec.schedule.recurring"]).ok().stdout;
    for part in ["cron", "timeZone", "duration", "IANA time zone", "five fields of crontab(5)"] {
        assert!(explained.contains(part), "{explained}");
    }
    let all = server.plane.kubectl(&["-n", "acme", "get", "tidegate"]).ok().stdout;
    assert!(all.contains("supportwindow.tidegate.dev/columns"), "{all}");

    server.create(&object("Relay", "scaled", &json!({"meshRef": {"name": "prod"}, "replicas": 1})));
    server.plane.kubectl(&["-n", "acme", "scale", "relay/scaled", "--replicas=3"]).ok();
    let replicas = server.plane.kubectl(&[
        "-n",
        "acme",
        "get",
        "rly",
        "scaled",
        "-o",
        "jsonpath={.spec.replicas}",
    ]);
    assert_eq!(replicas.ok().stdout, "3");
}

/// What an accepted object holds is there for the operator alone, and comes back as it was written.
#[test]
fn a_status_carries_what_its_object_holds() {
    let Some(server) = Server::shared() else { return };
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFAIIYRY7fwsiYzj9JbMpYWCbbluwzZH4xVEuyDuY3Dd";
    let services = json!([{"name": "ssh", "port": 22, "listenPort": 20_017}]);
    let terminal =
        object("Terminal", "holder", &json!({"publicKeys": [key], "services": services}));
    let mut with_status = terminal.clone();
    let holds = json!({"generation": 1, "keys": ["SHA256:abc"], "listenPorts": [20_017]});
    with_status["status"] = json!({"holds": holds});
    let stored = server.create(&with_status);
    assert!(stored["status"].is_null(), "nobody sets a status by creating: {stored}");
    let status = json!({"status": {"holds": holds}}).to_string();
    server
        .plane
        .kubectl(&[
            "-n",
            "acme",
            "patch",
            "term",
            "holder",
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ])
        .ok();
    let got =
        server.plane.kubectl(&["-n", "acme", "get", "term", "holder", "-o", "json"]).ok().stdout;
    let got: Value = serde_json::from_str(&got).unwrap();
    assert_eq!(got["status"]["holds"], holds);
    assert_eq!(got["metadata"]["generation"], 1);
    let bad = json!({"status": {"holds": {"generation": 1, "listenPorts": [0]}}}).to_string();
    let refused = server.plane.kubectl(&[
        "-n",
        "acme",
        "patch",
        "term",
        "holder",
        "--subresource=status",
        "--type=merge",
        "-p",
        &bad,
    ]);
    assert!(refused.stderr.contains("status.holds.listenPorts[0]"), "{}", refused.stderr);
}
