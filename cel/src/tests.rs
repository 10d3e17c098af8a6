use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Value as Json, json};

use super::types::{Identity, List, Object};
use super::{Environment, Error, Key, Program, Type, Value};

fn environment(variables: &[(&'static str, Type)]) -> Environment {
    Environment {
        makes_objects: false,
        variables: variables.iter().cloned().collect(),
        quantity: |text| match text.strip_suffix("Gi").map(str::parse::<i128>) {
            Some(Ok(n)) => Ok((n << 30) * 1_000_000_000),
            _ => text.parse::<i128>().map(|n| n * 1_000_000_000).map_err(|_| "no quantity".to_owned()),
        },
        format: |name, text| if text.is_empty() { Err(format!("no {name}")) } else { Ok(()) },
    }
}

/// An object with fields of many types.
fn self_type() -> Type {
    let list = |item: Type, identity| Type::List(Rc::new(List { item, identity }));
    let port = Object {
        name: "port".to_owned(),
        fields: [("name", Type::String), ("number", Type::Int)]
            .map(|(name, type_)| (name.to_owned(), (name.to_owned(), type_)))
            .into(),
    };
    let fields = [
        ("text", "text", Type::String),
        ("n", "n", Type::Int),
        ("half", "half", Type::Double),
        ("labels", "labels", Type::map(Type::String, Type::String)),
        ("words", "words", Type::list(Type::String)),
        ("set", "set", list(Type::Int, Identity::Value)),
        ("ports", "ports", list(Type::Object(Rc::new(port)), Identity::Fields(vec!["name".to_owned()]))),
        ("any", "any", Type::Dyn),
        ("time", "time", Type::Timestamp),
        ("a__dash__b", "a-b", Type::Bool),
    ];
    let fields = fields.map(|(name, json, type_)| (name.to_owned(), (json.to_owned(), type_)));
    Type::Object(Rc::new(Object { name: "selfType".to_owned(), fields: fields.into() }))
}

fn object() -> Json {
    json!({"text": "hällo", "n": 3, "half": 2, "labels": {"b": "2", "a": "1"}, "words": ["x", "yy"], "set": [1, 2],
        "ports": [{"name": "a", "number": 1}, {"name": "b", "number": 2}], "any": {"x": [1, "s", null]},
        "time": "2024-02-03T04:05:06Z", "a-b": true})
}

/// A value as text that tells types apart.
fn shown(value: &Value<'_>) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Uint(n) => format!("{n}u"),
        Value::Int(n) => n.to_string(),
        Value::Double(n) => format!("{n:?}"),
        Value::Bool(is) => is.to_string(),
        Value::Optional(None) => "none".to_owned(),
        Value::Optional(Some(value)) => format!("some({})", shown(value)),
        Value::Map(map) => {
            let entries = map.iter().map(|(key, value)| format!("{key:?}: {}", shown(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        value => match value.items() {
            Some(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
            None => format!("{value:?}"),
        },
    }
}

const LIMIT: u64 = 1_000_000;

fn run(source: &str) -> (Result<String, String>, u64) {
    let environment = environment(&[("self", self_type())]);
    let program = match Program::compile(source, &environment) {
        Ok(program) => program,
        Err(issues) => return (Err(issues.to_string()), 0),
    };
    let object = object();
    let variables = BTreeMap::from([("self", Value::of(&object, &self_type()))]);
    let (result, cost) = program.run(&environment, &variables, LIMIT);
    (result.map(|value| shown(&value)).map_err(|why| why.to_string()), cost)
}

#[track_caller]
fn check(source: &str, want: &str) {
    assert_eq!(run(source).0, Ok(want.to_owned()), "{source}");
}

#[track_caller]
fn fails(source: &str, want: &str) {
    assert_eq!(run(source).0, Err(want.to_owned()), "{source}");
}

#[test]
fn operators() {
    check("1 + 2 * 3 - 10 / 4 % 2", "7");
    check("-(2) < -1 && !(1 >= 2)", "true");
    check("1u + 2u == 3u", "true");
    check("1.5 * 2.0", "3.0");
    check("1 < 1.5 && 2u > 1", "true");
    check("'a' + \"b\" + r'\\n' + '\\u00e4\\x41\\101'", "\"ab\\\\näAA\"");
    check("b'\\xff' + b'a' == b'\\377a'", "true");
    check("'''a\n'b'''", "\"a\\n'b\"");
    check("[1, 2] + [3]", "[1, 2, 3]");
    check("{'a': 1, 'b': 2}['b']", "2");
    check("2 in [1, 2] && 'a' in {'a': 1} && !('z' in self.labels)", "true");
    check("self.n == 3 ? 'yes' : 'no'", "\"yes\"");
    check("0xff", "255");
    check("-9223372036854775808", "-9223372036854775808");
    check("true || 1 / 0 == 1", "true");
    check("1 / 0 == 1 || true", "true");
    check("1 / 0 == 1 && false", "false");
    check("type(1) == int && type('') != int", "true");
    check("1 // one", "1");
    fails("1 / 0", "division by zero");
    fails("9223372036854775807 + 1", "integer overflow");
    fails("0u - 1u", "unsigned integer overflow");
    fails("[1][3]", "index out of bounds: 3");
    fails("self.labels['z']", "no such key: z");
    fails("self.any.y", "no such key: y");
    fails("self.any.x[1] + 1", "no such overload");
}

#[test]
fn fields() {
    check("self.a__dash__b", "true");
    check("self.half", "2.0");
    check("has(self.text) && !has(self.any.y) && has(self.labels.a)", "true");
    check("self.labels.a + self.any.x[1]", "\"1s\"");
    check("self.time > timestamp('2024-01-01T00:00:00Z') && self.time.getMonth() == 1", "true");
    check("self.time + duration('1h30m') - self.time", "Duration(5400000000000)");
    check("string(duration('90s')) + string(duration('1500ms'))", "\"90s1.5s\"");
    check("self.?any.?y.orValue(1)", "1");
    check("self.labels[?'a'].optMap(x, x + '!').orValue('')", "\"1!\"");
    check("[?self.labels[?'a'], ?self.labels[?'z']]", "[\"1\"]");
    check("optional.none().hasValue()", "false");
    check("self.set == [2, 1] && self.words != ['yy', 'x']", "true");
    check("self.set + [2, 3]", "[1, 2, 3]");
    check("(self.ports + self.ports).size()", "2");
}

#[test]
fn macros() {
    check("self.words.all(w, w.size() > 0) && self.ports.exists(p, p.number == 2)", "true");
    check("self.ports.exists_one(p, p.number > 0)", "false");
    check("self.words.map(w, w + w)", "[\"xx\", \"yyyy\"]");
    check("self.ports.map(p, p.number > 1, p.name)", "[\"b\"]");
    check("[1, 2, 3].filter(n, n % 2 == 1)", "[1, 3]");
    check("self.labels.map(k, k)", "[\"a\", \"b\"]");
    check("self.labels.all(k, v, k < v || v == '1' || v == '2')", "true");
    check("self.words.transformList(i, w, string(i) + w)", "[\"0x\", \"1yy\"]");
    check("self.labels.transformMap(k, v, k != 'a', v + k)", "{String(\"b\"): \"2b\"}");
    check("[1, 0].exists(n, 1 / n == 1)", "true");
    check("[0, 1].exists(n, 1 / n == 1)", "true");
    fails("[0, 2].all(n, 1 / n < 1)", "division by zero");
    check("[[1], [2]].all(l, l.exists(n, n in l))", "true");
}

#[test]
fn text() {
    check("self.text.size()", "5");
    check("'a,b,c'.split(',')", "[\"a\", \"b\", \"c\"]");
    check("'a,b,c'.split(',', 2)", "[\"a\", \"b,c\"]");
    check("'häl'.split('')", "[\"h\", \"ä\", \"l\"]");
    check("['a', 'b'].join('-')", "\"a-b\"");
    check("'TacoCat'.lowerAscii() + 'x'.upperAscii()", "\"tacocatX\"");
    check("'hällo'.substring(1, 3) + 'hällo'.substring(4)", "\"älo\"");
    check("'hällo'.indexOf('l') + 'hällo'.lastIndexOf('l')", "5");
    check("'aaa'.indexOf('a', 1) * 10 + 'aaa'.lastIndexOf('a', 1)", "11");
    check("'hello'.replace('l', 'L', 1) + ' x '.trim() + 'abc'.charAt(1)", "\"heLloxb\"");
    check("'abc123'.matches('^[a-z]+[0-9]+$') && matches('x', 'x')", "true");
    check("'abc 123 45'.find('[0-9]+') + string('1 2 3'.findAll('[0-9]', 2).size())", "\"1232\"");
    check("'%s is %d of %s (%.1f, %x)'.format(['a', 2, [1, 'b'], 2.25, 255])", "\"a is 2 of [1, b] (2.2, ff)\"");
    check("strings.quote('a\"\\n')", "\"\\\"a\\\\\\\"\\\\n\\\"\"");
    check("string(1) + string(2.5) + string(true) + string(b'x')", "\"12.5truex\"");
    check("int('12') + int(3.9) + int(4u)", "19");
    fails("'abc'.substring(2, 1)", "invalid substring range. start: 2, end: 1");
    fails("'abc'.charAt(4)", "index out of range: 4");
    fails("int('x')", "strconv.ParseInt: parsing \"x\": invalid syntax");
}

#[test]
fn libraries_of_kubernetes() {
    check("[1, 2, 2].isSorted() && ![2, 1].isSorted()", "true");
    check("[1, 2, 3].sum() + [4, 5].max() - [7, 6].min()", "5");
    check("[1, 2, 1].indexOf(1) * 10 + [1, 2, 1].lastIndexOf(1)", "2");
    check("sets.contains([1, 2], [2]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])", "true");
    check("quantity('2Gi').isGreaterThan(quantity('1Gi')) && quantity('3').asInteger() == 3", "true");
    check("quantity('1').add(2).compareTo(quantity('3')) == 0 && isQuantity('1') && !isQuantity('x')", "true");
    check("ip('10.0.0.1').family() == 4 && isIP('::1') && !isIP('::ffff:1.2.3.4') && ip('::1').isLoopback()", "true");
    check("cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsCIDR('10.0.0.0/7')", "true");
    check("cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && string(cidr('::/0').ip()) == '::'", "true");
    check("ip.isCanonical('::1') && !ip.isCanonical('0:0::1')", "true");
    check("url('https://u@[::1]:80/p%20q?a=1&a=2').getHostname() + url('http://h:80/').getPort()", "\"::180\"");
    check("url('https://h/p?a=1&b=%20').getQuery()", "{String(\"a\"): [\"1\"], String(\"b\"): [\" \"]}");
    check("isURL('/a/b') && !isURL('../a') && url('/a/b').getEscapedPath() == '/a/b'", "true");
    check("!format.dns1123Label().validate('x').hasValue() && format.uuid().validate('').hasValue()", "true");
}

#[test]
fn what_is_wrong_is_shown_as_cel_go_does() {
    let check = |source: &str, want: &str| assert_eq!(run(source).0, Err(want.to_owned()), "{source}");
    check("self.x > 1", "ERROR: <input>:1:5: undefined field 'x'\n | self.x > 1\n | ....^");
    check("foo", "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')\n | foo\n | ^");
    check(
        "self.n == 'a'",
        "ERROR: <input>:1:8: found no matching overload for '_==_' applied to '(int, string)'\n | self.n == 'a'\n | .......^",
    );
    check(
        "self.text.startsWith(1)",
        "ERROR: <input>:1:21: found no matching overload for 'startsWith' applied to 'string.(int)'\n \
         | self.text.startsWith(1)\n | ....................^",
    );
    check(
        "semver('1')",
        "ERROR: <input>:1:7: undeclared reference to 'semver' (in container '')\n | semver('1')\n | ......^",
    );
    check("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^");
    check(
        "self.n.all(x, true)",
        "ERROR: <input>:1:5: expression of type 'int' cannot be range of a comprehension (must be list, map, or \
         dynamic)\n | self.n.all(x, true)\n | ....^",
    );
    check(
        "self.n.x\n  && 1 +\n    'ä' + self.y",
        "ERROR: <input>:1:7: type 'int' does not support field selection\n | self.n.x\n | ......^\n\
         ERROR: <input>:2:8: found no matching overload for '_+_' applied to '(int, string)'\n |   && 1 +\n \
         | .......^\n\
         ERROR: <input>:3:15: undefined field 'y'\n |     'ä' + self.y\n | ..............^",
    );
    check(
        "1 +",
        "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', \
         'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | 1 +\n | ...^",
    );
    check("1 2", "ERROR: <input>:1:3: Syntax error: mismatched input '2' expecting <EOF>\n | 1 2\n | ..^");
    check("@", "ERROR: <input>:1:1: Syntax error: token recognition error at: '@'\n | @\n | ^");
    check("has(self)", "ERROR: <input>:1:4: invalid argument to has() macro\n | has(self)\n | ...^");
    assert!(run("'a'.matches('(')").0.unwrap_err().starts_with("ERROR: <input>:1:13: invalid matches argument: "));
    let deep = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    for (open, close) in [("(", ")"), ("[", "]"), ("-", ""), ("!", ""), ("1+", ""), ("", ".x"), ("true?1:", "")] {
        assert!(
            run(&deep(open, close, 100_000 / 7)).0.unwrap_err().contains("expression recursion limit exceeded: 250")
        );
        run(&deep(open, close, 240)).0.ok();
    }
    assert!(run(&"1".repeat(100_001)).0.unwrap_err().contains("code point size exceeds limit: size: 100001"));
}

#[test]
fn what_is_done_has_a_cost() {
    let check = |source: &str, want: u64| {
        let (result, cost) = run(source);
        assert_eq!((cost, result.is_ok()), (want, true), "{source}: {result:?}");
    };
    check("1 == 1", 1);
    check("self.n", 2);
    check("self.n == 3", 3);
    check("self.words.all(w, w.size() > 0)", 2 + 1 + 2 * (3 + 1 + 1 + 1));
    check("self.words.map(w, w)", 2 + 1 + 2 * (12 + 1));
    check("self.text.matches('x')", 3);
    let limited = |source: &str| assert_eq!(run(source), (Err(Error::Cost.to_string()), run(source).1), "{source}");
    let hundred = format!("[{}]", vec!["1"; 100].join(","));
    limited(&format!("{hundred}.all(a, {hundred}.all(b, {hundred}.all(c, {hundred}.all(d, a + b + c + d > 0))))"));
    limited(&format!("['aaaaaaaa']{}.size() > 0", ".map(x, x.replace('a', x))".repeat(20)));
    limited(&format!("['aaaaaaaa']{}.size() > 0", ".map(x, x + x)".repeat(60)));
    limited(&format!("[[1]]{}.size() > 0", ".map(x, x + x)".repeat(60)));
}

#[test]
fn a_program_knows_what_it_uses() {
    let environment = environment(&[("self", Type::Int), ("oldSelf", Type::Int)]);
    let program = Program::compile("[1].all(oldSelf, oldSelf > 0) && self > 0", &environment).unwrap();
    assert_eq!((program.uses("self"), program.uses("oldSelf"), program.type_()), (true, false, &Type::Bool));
    assert_eq!(Key::of(&Value::Uint(1)), Some(Key::Int(1)));
}

#[test]
fn policies_make_objects() {
    let making = Environment { makes_objects: true, ..environment(&[]) };
    let check = |source: &str, want: Result<serde_json::Value, &str>| {
        let made = Program::compile(source, &making).map_err(|issues| issues.to_string()).and_then(|program| {
            let (value, _) = program.run(&making, &BTreeMap::new(), super::MAX_COST);
            value.and_then(|value| value.to_json()).map_err(|why| why.to_string())
        });
        match want {
            Ok(want) => assert_eq!(made, Ok(want), "{source}"),
            Err(want) => assert!(made.as_ref().is_err_and(|why| why.contains(want)), "{source}: {made:?}"),
        }
    };
    check("Object{}", Ok(json!({})));
    check(
        "Object{spec: Object.spec{replicas: 1 + 1, ?paused: optional.none(), __namespace__: {'a': [b'x']}, n: null}}",
        Ok(json!({"spec": {"replicas": 2, "namespace": {"a": ["eA=="]}, "n": null}})),
    );
    check("Object{spec: Object.sepc{}}", Err("unexpected type name \"Object.sepc\", expected \"Object.spec\""));
    check("Object{items: [Object.items{a: 1}]}.items[0].a", Err("undefined field 'items'"));
    let patch = "[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('b/c~d'), value: Object.x{y: 1}}]";
    check(patch, Ok(json!([{"op": "add", "path": "/a/b~1c~0d", "value": {"y": 1}}])));
    check("JSONPatch{op: 1}", Err("expected type of field 'op' is 'string' but provided type is 'int'"));
    check("JSONPatch{opp: ''}", Err("undefined field 'opp'"));
    check("Other{}", Err("undeclared reference to 'Other'"));
    check("Object{a: quantity('1')}", Err("a value of type kubernetes.Quantity has no form in JSON"));
    assert!(Program::compile("Object{}", &environment(&[])).is_err(), "rules make none");
}
