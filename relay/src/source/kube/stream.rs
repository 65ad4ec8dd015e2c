//! What is followed at the API server: one stream of objects for each kind and reach.

use std::fmt;

use tidegate_crds::manifest::Kind;

/// Whose objects a stream has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// Those of the Mesh's namespace.
    Home,
    /// Those of all other namespaces: two streams of one kind never have an object in common.
    Elsewhere,
    /// The cluster's own, which have no namespace.
    Cluster,
}

/// One kind, listed and watched in one reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream {
    pub kind: Kind,
    pub reach: Reach,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(plural(self.kind))?;
        f.write_str(match self.reach {
            Reach::Home => " of the Mesh's namespace",
            Reach::Elsewhere => " of all namespaces",
            Reach::Cluster => "",
        })
    }
}

/// The streams that a Mesh needs. One that serves its own namespace alone (`tenants.from: Same`)
/// needs no right outside of it.
pub fn needed(tenants: bool) -> impl Iterator<Item = Stream> {
    let of = |reach, kind| Stream { kind, reach };
    let home = Kind::OWN.into_iter().map(move |kind| of(Reach::Home, kind));
    let others = [Kind::Mesh, Kind::LoginUser, Kind::Terminal, Kind::SupportWindow];
    let others = others.into_iter().map(move |kind| of(Reach::Elsewhere, kind));
    let cluster = std::iter::once(of(Reach::Cluster, Kind::Namespace));
    home.chain(others.chain(cluster).filter(move |_| tenants))
}

impl Stream {
    /// Path of the collection at the API server; `home` is the Mesh's namespace.
    pub fn path(self, home: &str) -> String {
        let plural = plural(self.kind);
        let group = format!("/apis/{}/{}", tidegate_crds::GROUP, tidegate_crds::VERSION);
        match self.reach {
            Reach::Home => format!("{group}/namespaces/{home}/{plural}"),
            Reach::Elsewhere => format!("{group}/{plural}"),
            Reach::Cluster => format!("/api/v1/{plural}"),
        }
    }

    /// The field selector that keeps it apart from the other stream of its kind.
    pub fn selector(self, home: &str) -> Option<String> {
        (self.reach == Reach::Elsewhere).then(|| format!("metadata.namespace!={home}"))
    }

    /// Whether an object of this kind in `namespace` is one of its own.
    pub fn has(self, namespace: &str, home: &str) -> bool {
        match self.reach {
            Reach::Home => namespace == home,
            Reach::Elsewhere => namespace != home,
            Reach::Cluster => true,
        }
    }
}

/// The resource's name in paths.
pub fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::Mesh => "meshes",
        Kind::Relay => "relays",
        Kind::LoginUser => "loginusers",
        Kind::Terminal => "terminals",
        Kind::SupportWindow => "supportwindows",
        Kind::Namespace => "namespaces",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals_are_those_of_the_definitions() {
        for crd in tidegate_crds::crds() {
            if let Some(kind) = Kind::own(&crd.spec.names.kind) {
                assert_eq!(plural(kind), crd.spec.names.plural);
            }
        }
    }

    #[test]
    fn a_mesh_without_tenants_asks_for_its_own_namespace_alone() {
        let same: Vec<Stream> = needed(false).collect();
        assert_eq!(same.len(), 5);
        assert!(same.iter().all(|stream| stream.path("gate").contains("/namespaces/gate/")));
        let all: Vec<Stream> = needed(true).collect();
        assert_eq!(all.len(), 10);
        for kind in [Kind::Mesh, Kind::Terminal] {
            for namespace in ["gate", "acme"] {
                let of = |stream: &&Stream| stream.kind == kind && stream.has(namespace, "gate");
                assert_eq!(all.iter().filter(of).count(), 1, "{kind} of {namespace}");
            }
        }
    }
}
