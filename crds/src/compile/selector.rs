//! Label selectors, by the rules of Kubernetes.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_policy::model::{LabelRequirement, LabelSelector};
use tidegate_policy::text::shown;

use super::{Refusal, Refusals, reason};
use crate::common::{Selector, SelectorOperator};

/// A selector; an empty one, which would select everything, is refused.
pub fn label_selector(field: &str, selector: &Selector) -> Result<LabelSelector, Vec<Refusal>> {
    let mut refusals = Refusals::default();
    let compiled = refusals.selector(field, selector);
    refusals.finish(Some(compiled))
}

/// The labels of an object that are labels by form; others can match nothing.
pub fn labels(labels: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    labels
        .into_iter()
        .flatten()
        .filter(|(key, value)| is_key(key) && is_value(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

impl Refusals {
    pub(super) fn selector(&mut self, field: &str, selector: &Selector) -> LabelSelector {
        if selector.match_labels.is_empty() && selector.match_expressions.is_empty() {
            self.add(field, reason::INVALID_SELECTOR, "must name at least one label");
        }
        for (key, value) in &selector.match_labels {
            let at = format!("{field}.matchLabels");
            self.label_key(&at, key);
            self.label_value(&at, value);
        }
        let mut requirements = Vec::new();
        for (i, expression) in selector.match_expressions.iter().enumerate() {
            let at = format!("{field}.matchExpressions[{i}]");
            self.label_key(&format!("{at}.key"), &expression.key);
            for (j, value) in expression.values.iter().enumerate() {
                self.label_value(&format!("{at}.values[{j}]"), value);
            }
            let key = expression.key.clone();
            let values: BTreeSet<_> = expression.values.iter().cloned().collect();
            let listed =
                matches!(expression.operator, SelectorOperator::In | SelectorOperator::NotIn);
            if listed == values.is_empty() {
                self.add(
                    format!("{at}.values"),
                    reason::INVALID_SELECTOR,
                    "must have values with In and NotIn, and none with Exists and DoesNotExist",
                );
            }
            requirements.push(match expression.operator {
                SelectorOperator::In => LabelRequirement::In(key, values),
                SelectorOperator::NotIn => LabelRequirement::NotIn(key, values),
                SelectorOperator::Exists => LabelRequirement::Exists(key),
                SelectorOperator::DoesNotExist => LabelRequirement::DoesNotExist(key),
            });
        }
        LabelSelector {
            match_labels: selector.match_labels.clone(),
            match_expressions: requirements,
        }
    }

    fn label_key(&mut self, field: &str, key: &str) {
        if !is_key(key) {
            let sentence = format!(
                "'{}' is not a label's key; write it as in site or tidegate.dev/site",
                shown(key, 80)
            );
            self.add(field, reason::INVALID_SELECTOR, sentence);
        }
    }

    fn label_value(&mut self, field: &str, value: &str) {
        if !is_value(value) {
            let sentence = format!(
                "'{}' is not a label's value: at most 63 of letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
                shown(value, 80)
            );
            self.add(field, reason::INVALID_SELECTOR, sentence);
        }
    }
}

/// A key: a name of at most 63 characters, behind an optional domain and a slash.
fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        None => !key.is_empty() && is_value(key),
        Some((prefix, name)) => {
            let label = |l: &str| tidegate_policy::model::Label::parse(l).is_ok();
            prefix.len() <= 253
                && prefix.split('.').all(label)
                && !name.is_empty()
                && is_value(name)
        }
    }
}

fn is_value(value: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    bytes.len() <= 63
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
        && edge(bytes.first())
        && edge(bytes.last())
}
