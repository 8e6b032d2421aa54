//! A real folder, changed in every way in which people and kubelets change folders.

use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{type: LoadBalancer, ports: [{{port: {port}}}]}}\n"
    )
}

fn replace(path: &Path, text: &str) {
    let aside = path.with_extension("tmp");
    fs::write(&aside, text).unwrap();
    fs::rename(aside, path).unwrap();
}

fn ports(sources: &Sources) -> Vec<i32> {
    let specs = sources.inputs.services.values().filter_map(|it| it.spec.as_ref());
    specs.flat_map(|spec| spec.ports.iter().flatten().map(|port| port.port)).collect()
}

fn until(receiver: &mut tokio::sync::watch::Receiver<Sources>, wanted: impl Fn(&Sources) -> bool) -> Sources {
    let start = Instant::now();
    loop {
        let now = receiver.borrow_and_update().clone();
        if wanted(&now) {
            return now;
        }
        assert!(start.elapsed() < LIMIT, "the folder says {now:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_file_is_replaced_added_and_removed() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, service("web", 80)).unwrap();
    let mut sources = watch(folder.path()).unwrap();
    assert_eq!(ports(&sources.borrow()), [80]);
    replace(&file, &service("web", 81));
    until(&mut sources, |it| ports(it) == [81]);
    fs::write(folder.path().join("b.yml"), service("zweb", 90)).unwrap();
    until(&mut sources, |it| ports(it) == [81, 90]);
    fs::remove_file(&file).unwrap();
    until(&mut sources, |it| ports(it) == [90] && it.problems.is_empty());
}

#[test]
fn a_config_map_swaps_its_link() {
    let folder = TempDir::new().unwrap();
    let version = |name: &str, port| {
        let version = folder.path().join(name);
        fs::create_dir(&version).unwrap();
        fs::write(version.join("web.yaml"), service("web", port)).unwrap();
        symlink(name, folder.path().join("..data_tmp")).unwrap();
        fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
    };
    version("..1", 80);
    symlink("..data/web.yaml", folder.path().join("web.yaml")).unwrap();
    let mut sources = watch(folder.path()).unwrap();
    assert_eq!(ports(&sources.borrow()), [80]);
    version("..2", 81);
    fs::remove_dir_all(folder.path().join("..1")).unwrap();
    until(&mut sources, |it| ports(it) == [81] && it.problems.is_empty());
}

#[test]
fn a_half_written_file_keeps_what_it_said() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, service("web", 80)).unwrap();
    let mut sources = watch(folder.path()).unwrap();
    fs::write(&file, "apiVersion: v1\nkind: Service\nmetadata: {name: w").unwrap();
    let broken = until(&mut sources, |it| !it.problems.is_empty());
    assert_eq!(ports(&broken), [80]);
    assert_eq!(broken.problems[0].effect, Effect::KeptLastGood);
    assert_eq!(broken.problems[0].object, format!("File {}", file.display()));
    fs::write(&file, service("web", 82)).unwrap();
    until(&mut sources, |it| ports(it) == [82] && it.problems.is_empty());
}

#[test]
fn a_folder_goes_away_and_comes_back() {
    let outer = TempDir::new().unwrap();
    let folder = outer.path().join("manifests");
    let mut sources = watch(&folder).unwrap();
    assert!(!sources.borrow().synced);
    assert_eq!(sources.borrow().problems[0].object, format!("File {}", folder.display()));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), service("web", 80)).unwrap();
    until(&mut sources, |it| ports(it) == [80] && it.problems.is_empty() && it.synced);
    fs::rename(&folder, outer.path().join("away")).unwrap();
    let gone = until(&mut sources, |it| !it.problems.is_empty());
    assert_eq!(ports(&gone), [80]);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), service("web", 81)).unwrap();
    until(&mut sources, |it| ports(it) == [81] && it.problems.is_empty());
    fs::write(folder.join("a.yaml"), service("web", 82)).unwrap();
    until(&mut sources, |it| ports(it) == [82]);
}

#[test]
fn many_changes_end_right_and_no_change_is_no_news() {
    let folder = TempDir::new().unwrap();
    let mut sources = watch(folder.path()).unwrap();
    let path = |n: u16| folder.path().join(format!("{n:03}.yaml"));
    (1..=100).for_each(|n| fs::write(path(n), service(&format!("s{n:03}"), n)).unwrap());
    until(&mut sources, |it| ports(it).len() == 100);
    (1..=100).for_each(|n| replace(&path(n), &service(&format!("s{n:03}"), n + 1000)));
    until(&mut sources, |it| ports(it).iter().all(|port| *port > 1000) && ports(it).len() == 100);
    let text = format!("# another comment\n{}", service("s001", 1001));
    replace(&path(1), &text);
    std::thread::sleep(QUIET * 6);
    assert!(!sources.has_changed().unwrap());
}

#[test]
fn one_bad_document_keeps_only_its_own_object_back() {
    let mut file = File::default();
    let path = Path::new("a.yaml");
    let text = |a: u32, b: u32| {
        format!(
            "{}---\n{}",
            service("a", 1).replace(": 1}", &format!(": {a}}}")),
            service("b", 2).replace(": 2}", &format!(": {b}}}"))
        )
    };
    file.take(path, parse("a.yaml", &text(1, 2)));
    file.take(path, parse("a.yaml", &text(70_000, 3)));
    let good = collect([(path, &file.good)]);
    let sources = Sources { inputs: good.inputs.into(), ..Sources::default() };
    assert_eq!(ports(&sources), [1, 3]);
    assert_eq!(good.problems.len(), 1);
    assert_eq!(good.problems[0].effect, Effect::KeptLastGood);
    assert_eq!(good.problems[0].field.as_deref(), Some("spec.ports[0].port"));
}

#[test]
fn the_first_of_two_definitions_wins() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.yaml"), service("web", 80)).unwrap();
    fs::write(folder.path().join("b.yaml"), service("web", 81)).unwrap();
    let mut folder = Folder::new(folder.path());
    folder.read();
    let sources = folder.sources();
    assert_eq!(ports(&sources), [80]);
    assert_eq!(sources.problems[0].reason, "DuplicateObject");
    assert!(sources.problems[0].object.ends_with("b.yaml"));
}

#[test]
fn a_document_that_has_no_effect_is_told_by_what_it_lacks() {
    let folder = TempDir::new().unwrap();
    let text = "kind: Service\nmetadata: {name: web}\n---\napiVersion: apps/v1\nkind: Deployment\n";
    fs::write(folder.path().join("a.yaml"), text).unwrap();
    let mut folder = Folder::new(folder.path());
    folder.read();
    let problems = folder.sources().problems;
    let told: Vec<_> = problems.iter().map(|it| (it.field.as_deref(), it.value.as_deref())).collect();
    assert_eq!(told, [(Some("apiVersion"), None), (Some("kind"), Some("Deployment"))]);
    assert!(problems[0].message.contains("without an `apiVersion`"), "{}", problems[0].message);
}
