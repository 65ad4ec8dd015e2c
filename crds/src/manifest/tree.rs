//! YAML text to trees of values that know their place. JSON is YAML.
//!
//! Bounded (invariant 8): nesting, nodes and bytes, aliases expanded included, so that neither a huge file nor
//! `&a [*b, *b, …]` costs more than a fixed amount of memory and time.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag, options};
use serde_json::Value;

use super::{quote, scalar};

/// Line and column, from 1.
pub(super) type At = (u32, u32);

/// The deepest nesting of a document.
pub(super) const DEPTH: usize = 64;
/// The most nodes of one file, those that aliases stand for included.
const NODES: usize = 1_000_000;
/// The most bytes of scalars that the aliases of one file may stand for.
const ALIASED_BYTES: usize = 16 << 20;
/// The most documents of one file.
const DOCUMENTS: usize = 100_000;
/// The longest key. YAML itself allows 1024 characters where a key is not marked with `?`.
const KEY_BYTES: usize = 1024;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub at: At,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Neither list nor map.
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub at: At,
    pub value: Node,
    /// It came from `<<`, so a later key may replace it.
    merged: bool,
    /// The key was written more than once; this is the last, which is the one that kubectl takes.
    pub again: bool,
}

/// Why a document cannot be read, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub at: At,
    pub message: String,
}

impl Fault {
    fn new(at: At, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

impl Node {
    /// The field of a map.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.content {
            Content::Map(entries) => {
                entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
            }
            _ => None,
        }
    }

    /// The text of a string.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Nodes, bytes of text and levels of the tree.
    fn measure(&self) -> (usize, usize, usize) {
        let add = |sum: (usize, usize, usize), child: &Node| {
            let (nodes, bytes, depth) = child.measure();
            (sum.0 + nodes, sum.1 + bytes, sum.2.max(depth + 1))
        };
        match &self.content {
            Content::Scalar(Value::String(text)) => (1, text.len(), 1),
            Content::Scalar(_) => (1, 0, 1),
            Content::List(items) => items.iter().fold((1, 0, 1), add),
            Content::Map(entries) => entries.iter().fold((1, 0, 1), |sum, entry| {
                let sum = add(sum, &entry.value);
                (sum.0, sum.1 + entry.key.len(), sum.2)
            }),
        }
    }
}

/// Hands each document of `text` that is not empty to `take`, in order. After a fault it goes on with the next
/// document that is marked by `---`.
pub(super) fn each_document(text: &str, mut take: impl FnMut(Result<Node, Fault>)) {
    let options = options! {
        flow_nesting_limit: DEPTH,
        block_nesting_limit: DEPTH,
        emit_comments: false,
        emit_unresolved_aliases: true,
    };
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut budget = Budget { nodes: NODES, aliased: ALIASED_BYTES };
    let mut builder = Builder::default();
    for _ in 0..DOCUMENTS {
        loop {
            match parser.next_event() {
                None => return,
                Some(Ok((Event::DocumentStart(..), _))) => builder = Builder::default(),
                Some(Ok((Event::DocumentEnd, _))) => break,
                Some(Ok((event, span))) => builder.event(event, span, &mut budget),
                Some(Err(error)) => {
                    let at = position(error.marker().line(), error.marker().col());
                    builder.fault = Some(Fault::new(at, quote::plain(&error.info())));
                    take(
                        std::mem::take(&mut builder)
                            .finish()
                            .unwrap_or_else(|| Err(Fault::new(at, "the document ends too early"))),
                    );
                    match parser.proceed_next_document() {
                        Ok(true) => break,
                        Ok(false) => return,
                        Err(error) => {
                            let at = position(error.marker().line(), error.marker().col());
                            return take(Err(Fault::new(at, quote::plain(&error.info()))));
                        }
                    }
                }
            }
        }
        if let Some(document) = std::mem::take(&mut builder).finish() {
            take(document);
        }
        if budget.nodes == 0 {
            return;
        }
    }
    take(Err(Fault::new((1, 1), format!("the file holds more than {DOCUMENTS} documents"))));
}

fn position(line: usize, column: usize) -> At {
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column + 1).unwrap_or(u32::MAX))
}

struct Budget {
    nodes: usize,
    aliased: usize,
}

impl Budget {
    fn node(&mut self, at: At) -> Result<(), Fault> {
        self.nodes = self.nodes.saturating_sub(1);
        if self.nodes == 0 {
            return Err(Fault::new(at, format!("the file holds more than {NODES} values")));
        }
        Ok(())
    }

    fn copy(&mut self, at: At, nodes: usize, bytes: usize) -> Result<(), Fault> {
        if nodes >= self.nodes || bytes > self.aliased {
            return Err(Fault::new(at, "document contains excessive aliasing"));
        }
        self.nodes -= nodes;
        self.aliased -= bytes;
        Ok(())
    }
}

/// A list or map that is not closed yet.
struct Open {
    at: At,
    anchor: usize,
    content: Content,
    /// The key that waits for its value; the text and whether it is `<<`.
    key: Option<(String, At, bool)>,
    /// Where in a map each key is, so that a wide map costs no more than a narrow one.
    index: HashMap<String, usize>,
}

/// One document in the making. After a fault it ignores what follows.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    fault: Option<Fault>,
}

impl Builder {
    /// `None` for a document that says nothing.
    fn finish(self) -> Option<Result<Node, Fault>> {
        if let Some(fault) = self.fault {
            return Some(Err(fault));
        }
        self.root.filter(|root| !matches!(root.content, Content::Scalar(Value::Null))).map(Ok)
    }

    fn event(&mut self, event: Event<'_>, span: Span, budget: &mut Budget) {
        if self.fault.is_none()
            && let Err(fault) = self.apply(event, span, budget)
        {
            self.fault = Some(fault);
            self.open.clear();
            self.anchors.clear();
        }
    }

    fn apply(&mut self, event: Event<'_>, span: Span, budget: &mut Budget) -> Result<(), Fault> {
        let at = position(span.start.line(), span.start.col());
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                budget.node(at)?;
                let value = resolve(&text, style, tag.as_deref(), at)?;
                let is_merge = style == ScalarStyle::Plain && text == "<<";
                self.value(Node { at, content: Content::Scalar(value) }, anchor, is_merge, budget)
            }
            Event::SequenceStart(_, anchor, tag) => {
                budget.node(at)?;
                collection_tag(tag.as_deref(), "seq", at)?;
                self.begin(at, anchor, Content::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                budget.node(at)?;
                collection_tag(tag.as_deref(), "map", at)?;
                self.begin(at, anchor, Content::Map(Vec::new()))
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => {
                    let node = Node { at: open.at, content: open.content };
                    self.value(node, open.anchor, false, budget)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(Fault::new(at, "an anchor's value contains itself"));
                };
                let (nodes, bytes, depth) = node.measure();
                if self.open.len() + depth > DEPTH {
                    return Err(too_deep(at));
                }
                budget.copy(at, nodes, bytes)?;
                let node = node.clone();
                self.value(node, 0, false, budget)
            }
            Event::UnresolvedAlias(name) => {
                Err(Fault::new(at, format!("unknown anchor {} referenced", quote::quoted(&name))))
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, at: At, anchor: usize, content: Content) -> Result<(), Fault> {
        if self.open.len() >= DEPTH {
            return Err(too_deep(at));
        }
        self.open.push(Open { at, anchor, content, key: None, index: HashMap::new() });
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn value(
        &mut self,
        node: Node,
        anchor: usize,
        is_merge: bool,
        budget: &mut Budget,
    ) -> Result<(), Fault> {
        if anchor != 0 {
            let (nodes, bytes, _) = node.measure();
            budget.copy(node.at, nodes, bytes)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut open.content, open.key.take()) {
            (Content::List(items), _) => items.push(node),
            (Content::Map(_), None) => open.key = Some((key(&node)?, node.at, is_merge)),
            (Content::Map(entries), Some((_, at, true))) => {
                merge(entries, &mut open.index, node, at)?;
            }
            (Content::Map(entries), Some((key, at, false))) => {
                put(entries, &mut open.index, key, at, node, false);
            }
            (Content::Scalar(_), _) => {}
        }
        Ok(())
    }
}

fn too_deep(at: At) -> Fault {
    Fault::new(at, format!("the document is nested deeper than {DEPTH} levels"))
}

/// A map's key as text, as the way through JSON makes it.
fn key(node: &Node) -> Result<String, Fault> {
    let text = match &node.content {
        Content::Scalar(Value::String(text)) => text.clone(),
        Content::Scalar(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
        _ => return Err(Fault::new(node.at, "unsupported map key: only text can be one")),
    };
    if text.len() > KEY_BYTES {
        return Err(Fault::new(node.at, format!("a key is longer than {KEY_BYTES} bytes")));
    }
    Ok(text)
}

/// Adds an entry. The last of several wins, as with kubectl; who wrote a key twice is told.
fn put(
    entries: &mut Vec<Entry>,
    index: &mut HashMap<String, usize>,
    key: String,
    at: At,
    value: Node,
    merged: bool,
) {
    match index.get(&key).and_then(|place| entries.get_mut(*place)) {
        None => {
            index.insert(key.clone(), entries.len());
            entries.push(Entry { key, at, value, merged, again: false });
        }
        Some(entry) => {
            entry.again |= !entry.merged && !merged;
            entry.at = at;
            entry.value = value;
            entry.merged = merged;
        }
    }
}

/// `<<: *base` or `<<: [*base, *more]`, in which the earlier one takes precedence.
fn merge(
    entries: &mut Vec<Entry>,
    index: &mut HashMap<String, usize>,
    value: Node,
    at: At,
) -> Result<(), Fault> {
    match value.content {
        Content::Map(more) => {
            for entry in more {
                put(entries, index, entry.key, entry.at, entry.value, true);
            }
            Ok(())
        }
        Content::List(items) => {
            for item in items.into_iter().rev() {
                if !matches!(item.content, Content::Map(_)) {
                    return Err(Fault::new(at, MERGE));
                }
                merge(entries, index, item, at)?;
            }
            Ok(())
        }
        Content::Scalar(_) => Err(Fault::new(at, MERGE)),
    }
}

const MERGE: &str = "map merge requires map or sequence of maps as the value";

fn resolve(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: At) -> Result<Value, Fault> {
    let no_number = || Fault::new(at, "unsupported value: JSON has no infinity and no NaN");
    let Some(tag) = tag else {
        return match style {
            ScalarStyle::Plain => scalar::plain(text).ok_or_else(no_number),
            _ => Ok(Value::from(text)),
        };
    };
    let mismatch =
        |kind: &str| Fault::new(at, format!("cannot decode {} as a {kind}", quote::quoted(text)));
    let core = tag.core_suffix();
    if core == Some("str") || tag.handle().is_empty() && tag.suffix() == "!" {
        return Ok(Value::from(text));
    }
    let value = scalar::plain(text).ok_or_else(no_number)?;
    match core {
        Some("bool") if value.is_boolean() => Ok(value),
        Some("int") if value.is_i64() || value.is_u64() => Ok(value),
        Some("float") if value.is_number() => Ok(value),
        Some("null") if value.is_null() => Ok(value),
        Some("timestamp") if value.is_string() => Ok(value),
        Some(kind @ ("bool" | "int" | "float" | "null" | "timestamp")) => Err(mismatch(kind)),
        _ => Err(unsupported_tag(tag, at)),
    }
}

fn collection_tag(tag: Option<&Tag>, expected: &str, at: At) -> Result<(), Fault> {
    match tag {
        Some(tag) if tag.core_suffix() != Some(expected) => Err(unsupported_tag(tag, at)),
        _ => Ok(()),
    }
}

fn unsupported_tag(tag: &Tag, at: At) -> Fault {
    Fault::new(at, format!("unsupported tag {}", quote::quoted(&tag.original())))
}
