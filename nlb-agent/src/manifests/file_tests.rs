//! One file's texts, one after the other, with a writer at work and without.

use super::*;
use Writer::{Nobody, Somebody};

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{type: LoadBalancer, ports: [{{port: {port}}}]}}\n"
    )
}

struct Story {
    file: File,
    now: Timestamp,
}

impl Story {
    fn new() -> Self {
        Self { file: File::default(), now: "2026-01-02T03:04:05Z".parse().unwrap() }
    }

    /// The file has this text now; returns what counts, as `name:port`.
    fn sees(&mut self, text: &str, writer: Writer) -> Vec<String> {
        self.file.take(
            Path::new("a.yaml"),
            Ok(Found { text: text.to_owned(), writer, version: None }),
            self.now,
        );
        let good = &self.file.good;
        let mut all: Vec<String> = good.objects.iter().chain(&good.kept).map(told).collect();
        all.sort();
        all
    }

    fn problems(&self) -> Vec<(String, Severity, Effect)> {
        let all = self.file.problems(Path::new("a.yaml"), self.now);
        all.into_iter().map(|it| (it.reason, it.severity, it.effect)).collect()
    }
}

fn told(object: &Object) -> String {
    let Object::Service(service) = object else { panic!("{object:?}") };
    let port = service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].port;
    format!("{}:{port}", service.metadata.name.as_deref().unwrap())
}

fn problem(reason: &str, severity: Severity, effect: Effect) -> (String, Severity, Effect) {
    (reason.to_owned(), severity, effect)
}

#[test]
fn a_text_that_is_being_written_takes_nothing_away() {
    let mut story = Story::new();
    let (a, b, c) = (service("a", 1), service("b", 2), service("c", 3));
    assert_eq!(story.sees(&format!("{a}---\n{b}"), Nobody), ["a:1", "b:2"]);
    assert_eq!(story.problems(), []);
    // Truncated; then it grows, in the middle of a document and between two.
    assert_eq!(story.sees("", Somebody), ["a:1", "b:2"]);
    assert_eq!(story.sees("apiVersion: v1\nkind: Serv", Somebody), ["a:1", "b:2"]);
    let eight = service("a", 8080);
    assert_eq!(story.sees(&eight[..eight.find("80}").unwrap()], Somebody), ["a:1", "b:2"]);
    assert_eq!(story.sees(&eight, Somebody), ["a:1", "b:2"], "nothing ends this document yet");
    assert_eq!(story.sees(&format!("{eight}---\n"), Somebody), ["a:8080", "b:2"]);
    assert_eq!(story.sees(&format!("{eight}---\n{c}---\nkind: ["), Somebody), ["a:8080", "b:2", "c:3"]);
    let whole = format!("{eight}---\n{c}");
    assert_eq!(story.sees(&whole, Nobody), ["a:8080", "c:3"]);
    assert_eq!(story.problems(), []);
}

#[test]
fn a_writer_that_never_ends_is_told_and_deletes_nothing() {
    let mut story = Story::new();
    story.sees(&service("a", 1), Nobody);
    story.sees("", Somebody);
    let kept = Effect::KeptLastGood;
    assert_eq!(story.problems(), [problem("FileBeingWritten", Severity::Normal, kept)]);
    story.now += SignedDuration::from_hours(1);
    assert_eq!(story.sees("", Somebody), ["a:1"]);
    assert_eq!(story.problems(), [problem("FileBeingWritten", Severity::Warning, kept)]);
    let message = story.file.problems(Path::new("a.yaml"), story.now)[0].message.clone();
    for word in ["a.yaml", "since 2026-01-02T03:04:05Z", "Service default/a"] {
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn a_text_that_holds_nothing_takes_nothing_away() {
    for void in ["", "\n", " \n\t\n", "---\n---\n", "# all gone\n", "\u{feff}"] {
        let mut story = Story::new();
        assert_eq!(story.sees(void, Nobody), Vec::<String>::new());
        assert_eq!(story.problems(), [problem("EmptyManifest", Severity::Normal, Effect::Ignored)]);
        assert!(story.file.is_doubtful());
        story.sees(&service("a", 1), Nobody);
        assert!(!story.file.is_doubtful());
        assert_eq!(story.sees(void, Nobody), ["a:1"], "{void:?}");
        assert_eq!(story.problems(), [problem("EmptyManifest", Severity::Warning, Effect::KeptLastGood)]);
        let message = story.file.problems(Path::new("a.yaml"), story.now)[0].message.clone();
        assert!(message.contains("Remove the file"), "{message}");
        // What is kept is kept through more of the like, and goes with a whole text.
        assert_eq!(story.sees(&format!("{void}\n\n"), Nobody), ["a:1"]);
        assert_eq!(story.sees("kind: [", Nobody), ["a:1"]);
        assert_eq!(story.sees(&service("b", 2), Nobody), ["b:2"]);
        assert_eq!(story.problems(), []);
    }
}

#[test]
fn a_list_without_items_is_a_whole_text() {
    let mut story = Story::new();
    story.sees(&service("a", 1), Nobody);
    let none = story.sees("apiVersion: v1\nkind: List\nitems: []\n", Nobody);
    assert_eq!((none, story.problems()), (vec![], vec![]));
}

#[test]
fn one_bad_document_keeps_only_its_own_object_back() {
    let mut story = Story::new();
    let text = |a: &str, b: u16| format!("{}---\n{}", service("a", 1).replace(": 1}", a), service("b", b));
    story.sees(&text(": 1}", 2), Nobody);
    for bad in [": 70000}", ": x}"] {
        assert_eq!(story.sees(&text(bad, 3), Nobody), ["a:1", "b:3"]);
        let effects: Vec<Effect> = story
            .file
            .good
            .refused
            .iter()
            .flat_map(|it| &it.problems)
            .map(|it| it.effect)
            .chain(story.problems().into_iter().map(|it| it.2))
            .collect();
        assert_eq!(effects, [Effect::KeptLastGood], "{bad}");
        // A document that is gone is gone, whatever is wrong with another.
        assert_eq!(story.sees(&service("a", 1).replace(": 1}", bad), Nobody), ["a:1"]);
        story.sees(&text(": 1}", 2), Nobody);
    }
}

#[test]
fn a_document_that_cannot_be_told_keeps_what_is_absent_and_serves_the_rest() {
    let (a, b, c) = (service("a", 1), service("b", 2), service("c", 3));
    for bad in ["kind: [\n", "a: *b\n", "words\n", "metadata: {name: b\n"] {
        let mut story = Story::new();
        // From a fresh start nothing was kept, and the problem does not say so.
        assert_eq!(story.sees(&format!("{a}---\n{bad}---\n{c}"), Nobody), ["a:1", "c:3"]);
        assert_eq!(story.problems(), [problem("UnreadableManifest", Severity::Warning, Effect::Ignored)]);
        story.sees(&format!("{a}---\n{b}"), Nobody);
        let now = story.sees(&format!("{}---\n{bad}---\n{c}", service("a", 7)), Nobody);
        assert_eq!(now, ["a:7", "b:2", "c:3"], "{bad}");
        assert_eq!(
            story.problems(),
            [problem("UnreadableManifest", Severity::Warning, Effect::KeptLastGood)]
        );
    }
}

#[test]
fn a_file_that_cannot_be_read_keeps_what_it_said() {
    let mut story = Story::new();
    story.file.take(Path::new("a.yaml"), Err(anyhow::anyhow!("permission denied")), story.now);
    assert_eq!(story.problems(), [problem("UnreadableManifest", Severity::Warning, Effect::Ignored)]);
    assert!(story.file.is_doubtful());
    story.sees(&service("a", 1), Nobody);
    story.file.take(Path::new("a.yaml"), Err(anyhow::anyhow!("permission denied")), story.now);
    assert_eq!(story.problems(), [problem("UnreadableManifest", Severity::Warning, Effect::KeptLastGood)]);
    assert_eq!(story.sees(&service("a", 1), Nobody), ["a:1"]);
    assert_eq!(story.problems(), []);
}
