//! Lists of objects, page by page.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::Resource;
use kube::api::ListParams;
use kube::core::request::Request;
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use serde::Deserialize;
use serde_json::Value;
use tidegate_crds::manifest::Kind;
use tidegate_crds::{LoginUser, Mesh, Relay, SupportSession, SupportWindow, Terminal};

use super::{Cluster, Trouble, VIEWER};

/// Objects of one page; a list of any length is never in memory as a whole.
const PAGE: u32 = 500;
/// A list whose continuation has expired is begun anew this many times.
const ANEW: u32 = 3;

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kindred {
    Own(Kind),
    Sessions,
}

impl Kindred {
    /// As people say it: `terminals`.
    fn plural(self) -> &'static str {
        match self {
            Self::Own(Kind::Mesh) => "meshes",
            Self::Own(Kind::Relay) => "relays",
            Self::Own(Kind::LoginUser) => "loginusers",
            Self::Own(Kind::Terminal) => "terminals",
            Self::Own(Kind::SupportWindow) => "supportwindows",
            Self::Own(Kind::Namespace) => "namespaces",
            Self::Sessions => "supportsessions",
        }
    }

    fn path(self, namespace: Option<&str>) -> String {
        fn of<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
            namespace: Option<&str>,
        ) -> String {
            K::url_path(&(), namespace)
        }
        fn global<K: Resource<DynamicType = (), Scope = ClusterResourceScope>>() -> String {
            K::url_path(&(), None)
        }
        match self {
            Self::Own(Kind::Mesh) => of::<Mesh>(namespace),
            Self::Own(Kind::Relay) => of::<Relay>(namespace),
            Self::Own(Kind::LoginUser) => of::<LoginUser>(namespace),
            Self::Own(Kind::Terminal) => of::<Terminal>(namespace),
            Self::Own(Kind::SupportWindow) => of::<SupportWindow>(namespace),
            Self::Own(Kind::Namespace) => global::<k8s_openapi::api::core::v1::Namespace>(),
            Self::Sessions => of::<SupportSession>(namespace),
        }
    }
}

/// One page of a list.
#[derive(Debug, Deserialize)]
pub struct Page {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Value>,
}

impl Cluster {
    /// Gives every object of a kind to `take`, in one namespace or in all. `fields` is a field selector.
    /// Where the list must be begun anew, `take` sees objects again.
    pub async fn each(
        &self,
        kind: Kindred,
        namespace: Option<&str>,
        fields: Option<&str>,
        mut take: impl FnMut(Value),
    ) -> Result<(), Trouble> {
        let plural = kind.plural();
        let what = match namespace {
            Some(namespace) => format!("list {plural} in namespace {namespace}"),
            None if kind == Kindred::Own(Kind::Namespace) => "list namespaces".to_owned(),
            None => format!("list {plural} in all namespaces"),
        };
        let path = kind.path(namespace);
        let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
        if let Some(fields) = fields {
            params = params.fields(fields);
        }
        let mut anew = 0;
        loop {
            let request = Request::new(&path)
                .list(&params)
                .map_err(|error| Trouble::new(format_args!("cannot {what}: {error}")))?;
            let page: Page = match self.ask(&what, VIEWER, self.client.request(request)).await {
                Ok(page) => page,
                Err(trouble) if trouble.expired && anew < ANEW => {
                    anew += 1;
                    params.continue_token = None;
                    continue;
                }
                Err(trouble) if trouble.absent => return Err(no_crds(plural)),
                Err(trouble) => return Err(trouble),
            };
            page.items.into_iter().for_each(&mut take);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(()),
            }
        }
    }
}

fn no_crds(plural: &str) -> Trouble {
    let sentence = format!(
        "this cluster does not know {plural}.tidegate.dev; install Tidegate's CRDs, or choose another --context"
    );
    Trouble { absent: true, ..Trouble::new(sentence) }
}
