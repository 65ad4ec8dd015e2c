//! Which Mesh is meant.

use tidegate_policy::model::{Label, ObjectKey};

use super::Trouble;

/// What was said about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// `--mesh`: `NAME` or `NAMESPACE/NAME`.
    pub mesh: Option<&'a str>,
    /// By `-n`, else the context's.
    pub namespace: &'a str,
}

/// The one Mesh: the one asked for, else the only one, else the only one of the namespace; else the one that
/// `serves` the namespace.
pub(super) fn choose(
    meshes: &[ObjectKey],
    asked: Asked<'_>,
    serves: impl Fn(&ObjectKey, &str) -> bool,
) -> Result<ObjectKey, Trouble> {
    if meshes.is_empty() {
        return Err(Trouble::new(
            "there is no Mesh here; apply one, choose another --context or -n, or ask a directory with \
             --manifests DIR",
        ));
    }
    let listed = |meshes: &[&ObjectKey]| {
        let names: Vec<String> = meshes.iter().take(5).map(ToString::to_string).collect();
        names.join(", ")
    };
    let only = |found: Vec<&ObjectKey>| match found.as_slice() {
        [one] => Some((*one).clone()),
        _ => None,
    };
    let all: Vec<&ObjectKey> = meshes.iter().collect();
    if let Some(wanted) = asked.mesh {
        let found: Vec<&ObjectKey> = match wanted.split_once('/') {
            Some(_) => meshes.iter().filter(|key| key.to_string() == wanted).collect(),
            None => meshes.iter().filter(|key| key.name.as_str() == wanted).collect(),
        };
        return match found.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(Trouble::new(format_args!(
                "there is no Mesh {wanted:?} here; there are {}",
                listed(&all)
            ))),
            several => Err(Trouble::new(format_args!(
                "several Meshes are named {wanted:?}; give --mesh NAMESPACE/NAME, one of {}",
                listed(several)
            ))),
        };
    }
    let at_home = all.iter().filter(|key| key.namespace.as_str() == asked.namespace).copied();
    let serving = all.iter().filter(|key| serves(key, asked.namespace)).copied();
    only(all.clone())
        .or_else(|| only(at_home.collect()))
        .or_else(|| only(serving.collect()))
        .ok_or_else(|| {
            Trouble::new(format_args!(
                "there are several Meshes; choose one with -n NAMESPACE or --mesh NAMESPACE/NAME: {}",
                listed(&all)
            ))
        })
}

/// A Mesh's key from its metadata.
pub(super) fn key(namespace: &str, name: &str) -> Option<ObjectKey> {
    Some(ObjectKey { namespace: Label::parse(namespace).ok()?, name: Label::parse(name).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(meshes: &[&str], mesh: Option<&str>, namespace: &str) -> Result<String, String> {
        let keys: Vec<_> = meshes
            .iter()
            .map(|text| text.split_once('/').unwrap())
            .map(|(namespace, name)| key(namespace, name).unwrap())
            .collect();
        // The Mesh `b/two` serves the tenant `acme`.
        let serves =
            |key: &ObjectKey, namespace: &str| key.to_string() == "b/two" && namespace == "acme";
        let found = choose(&keys, Asked { mesh, namespace }, serves);
        found.map(|key| key.to_string()).map_err(|trouble| trouble.to_string())
    }

    #[test]
    fn the_only_mesh_is_meant_and_of_several_the_one_that_is_named_or_near() {
        assert_eq!(chosen(&["a/one"], None, "default").unwrap(), "a/one");
        let both = ["a/one", "b/two"];
        assert_eq!(chosen(&both, None, "b").unwrap(), "b/two");
        assert_eq!(chosen(&both, None, "acme").unwrap(), "b/two");
        assert_eq!(chosen(&both, Some("one"), "b").unwrap(), "a/one");
        assert_eq!(chosen(&both, Some("b/two"), "a").unwrap(), "b/two");
    }

    #[test]
    fn what_is_not_clear_is_said_in_a_sentence() {
        let none = chosen(&[], None, "default").unwrap_err();
        assert!(none.starts_with("there is no Mesh here; apply one"), "{none}");
        let both = ["a/prod", "b/prod"];
        let several = chosen(&both, None, "default").unwrap_err();
        assert!(several.ends_with("--mesh NAMESPACE/NAME: a/prod, b/prod"), "{several}");
        let twice = chosen(&both, Some("prod"), "default").unwrap_err();
        assert!(twice.starts_with("several Meshes are named \"prod\""), "{twice}");
        let other = chosen(&both, Some("test"), "default").unwrap_err();
        assert_eq!(other, "there is no Mesh \"test\" here; there are a/prod, b/prod");
    }
}
