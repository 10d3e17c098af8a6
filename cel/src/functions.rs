//! What functions there are, and what they take. Whatever is not declared here is refused before it is evaluated.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/cel/>, cel-go's standard library, and the libraries of
//! `k8s.io/apiserver/pkg/cel/library`. Missing of them: time zones, `semver`, the authorizer's functions, `%e` of
//! `format`.

use std::collections::BTreeMap;

use crate::types::Type;

/// A way to call a function.
#[derive(Debug)]
pub(crate) struct Overload {
    /// Whether the first argument stands before the dot.
    pub(crate) method: bool,
    pub(crate) args: Vec<Type>,
    pub(crate) result: Type,
}

/// The functions by their names.
pub(crate) type Functions = BTreeMap<&'static str, Vec<Overload>>;

/// One function a line: its name, then its overloads. `.` marks methods, whose first argument stands before the dot.
const DECLARED: &str = "
!_ (bool)bool
-_ (int)int (double)double (duration)duration
_==_ (A,A)bool
_!=_ (A,A)bool
_+_ (int,int)int (uint,uint)uint (double,double)double (string,string)string (bytes,bytes)bytes \
    (list<A>,list<A>)list<A> (timestamp,duration)timestamp (duration,timestamp)timestamp (duration,duration)duration
_-_ (int,int)int (uint,uint)uint (double,double)double (timestamp,timestamp)duration (timestamp,duration)timestamp \
    (duration,duration)duration
_*_ (int,int)int (uint,uint)uint (double,double)double
_/_ (int,int)int (uint,uint)uint (double,double)double
_%_ (int,int)int (uint,uint)uint
_?_:_ (bool,A,A)A
_[_] (list<A>,int)A (map<A,B>,A)B (optional<list<A>>,int)optional<A> (optional<map<A,B>>,A)optional<B>
_[?_] (list<A>,int)optional<A> (map<A,B>,A)optional<B> (optional<list<A>>,int)optional<A> \
    (optional<map<A,B>>,A)optional<B>
@in (A,list<A>)bool (A,map<A,B>)bool
size (string)int (bytes)int (list<A>)int (map<A,B>)int .(string)int .(bytes)int .(list<A>)int .(map<A,B>)int
int (int)int (uint)int (double)int (string)int (timestamp)int (duration)int
uint (uint)uint (int)uint (double)uint (string)uint
double (double)double (int)double (uint)double (string)double
string (string)string (int)string (uint)string (double)string (bool)string (bytes)string (timestamp)string \
    (duration)string (net.IP)string (net.CIDR)string
bytes (bytes)bytes (string)bytes
bool (bool)bool (string)bool
dyn (A)dyn
type (A)type
timestamp (timestamp)timestamp (string)timestamp (int)timestamp
duration (duration)duration (string)duration
getFullYear .(timestamp)int
getMonth .(timestamp)int
getDate .(timestamp)int
getDayOfMonth .(timestamp)int
getDayOfWeek .(timestamp)int
getDayOfYear .(timestamp)int
getHours .(timestamp)int .(duration)int
getMinutes .(timestamp)int .(duration)int
getSeconds .(timestamp)int .(duration)int
getMilliseconds .(timestamp)int .(duration)int
contains .(string,string)bool
startsWith .(string,string)bool
endsWith .(string,string)bool
matches .(string,string)bool (string,string)bool
charAt .(string,int)string
indexOf .(string,string)int .(string,string,int)int .(list<A>,A)int
lastIndexOf .(string,string)int .(string,string,int)int .(list<A>,A)int
join .(list<string>)string .(list<string>,string)string
lowerAscii .(string)string
upperAscii .(string)string
replace .(string,string,string)string .(string,string,string,int)string
split .(string,string)list<string> .(string,string,int)list<string>
substring .(string,int)string .(string,int,int)string
trim .(string)string
format .(string,list<dyn>)string
strings.quote (string)string
jsonpatch.escapeKey (string)string
find .(string,string)string
findAll .(string,string)list<string> .(string,string,int)list<string>
isSorted .(list<A>)bool
sum .(list<int>)int .(list<uint>)uint .(list<double>)double .(list<duration>)duration
min .(list<A>)A
max .(list<A>)A
sets.contains (list<A>,list<A>)bool
sets.equivalent (list<A>,list<A>)bool
sets.intersects (list<A>,list<A>)bool
optional.of (A)optional<A>
optional.ofNonZeroValue (A)optional<A>
optional.none ()optional<A>
hasValue .(optional<A>)bool
value .(optional<A>)A
or .(optional<A>,optional<A>)optional<A>
orValue .(optional<A>,A)A
url (string)kubernetes.URL
isURL (string)bool
getScheme .(kubernetes.URL)string
getHost .(kubernetes.URL)string
getHostname .(kubernetes.URL)string
getPort .(kubernetes.URL)string
getEscapedPath .(kubernetes.URL)string
getQuery .(kubernetes.URL)map<string,list<string>>
quantity (string)kubernetes.Quantity
isQuantity (string)bool
sign .(kubernetes.Quantity)int
isInteger .(kubernetes.Quantity)bool
asInteger .(kubernetes.Quantity)int
asApproximateFloat .(kubernetes.Quantity)double
isGreaterThan .(kubernetes.Quantity,kubernetes.Quantity)bool
isLessThan .(kubernetes.Quantity,kubernetes.Quantity)bool
compareTo .(kubernetes.Quantity,kubernetes.Quantity)int
add .(kubernetes.Quantity,kubernetes.Quantity)kubernetes.Quantity .(kubernetes.Quantity,int)kubernetes.Quantity
sub .(kubernetes.Quantity,kubernetes.Quantity)kubernetes.Quantity .(kubernetes.Quantity,int)kubernetes.Quantity
ip (string)net.IP .(net.CIDR)net.IP
isIP (string)bool
ip.isCanonical (string)bool
family .(net.IP)int
isUnspecified .(net.IP)bool
isLoopback .(net.IP)bool
isLinkLocalMulticast .(net.IP)bool
isLinkLocalUnicast .(net.IP)bool
isGlobalUnicast .(net.IP)bool
cidr (string)net.CIDR
isCIDR (string)bool
containsIP .(net.CIDR,net.IP)bool .(net.CIDR,string)bool
containsCIDR .(net.CIDR,net.CIDR)bool .(net.CIDR,string)bool
masked .(net.CIDR)net.CIDR
prefixLength .(net.CIDR)int
format.dns1123Label ()kubernetes.NamedFormat
format.dns1123Subdomain ()kubernetes.NamedFormat
format.dns1035Label ()kubernetes.NamedFormat
format.qualifiedName ()kubernetes.NamedFormat
format.labelValue ()kubernetes.NamedFormat
format.uuid ()kubernetes.NamedFormat
format.date ()kubernetes.NamedFormat
format.datetime ()kubernetes.NamedFormat
validate .(kubernetes.NamedFormat,string)optional<list<string>>
";

/// What values of these types are ordered; numbers of different types are compared too.
const ORDERED: [&str; 8] = ["bool", "int", "uint", "double", "string", "bytes", "timestamp", "duration"];

/// All functions.
pub(crate) fn functions() -> Functions {
    let mut functions = Functions::new();
    for line in DECLARED.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split_whitespace();
        let name = words.next().expect("a line has a name");
        functions.insert(name, words.map(overload).collect());
    }
    for name in ["_<_", "_<=_", "_>_", "_>=_"] {
        let numbers = ["int", "uint", "double"];
        let pairs = ORDERED.iter().map(|a| (*a, *a));
        let mixed = numbers.iter().flat_map(|a| numbers.iter().filter(move |b| *b != a).map(move |b| (*a, *b)));
        let overloads = pairs.chain(mixed).map(|(a, b)| Overload {
            method: false,
            args: vec![Type::parse(a), Type::parse(b)],
            result: Type::Bool,
        });
        functions.insert(name, overloads.collect());
    }
    functions
}

fn overload(text: &'static str) -> Overload {
    let (method, text) = text.strip_prefix('.').map_or((false, text), |text| (true, text));
    let (args, result) = text.strip_prefix('(').and_then(|t| t.split_once(')')).expect("a signature has parentheses");
    // Commas inside of `map<A,B>` part no arguments.
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (at, c) in args.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&args[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    if !args.is_empty() {
        parts.push(&args[from..]);
    }
    Overload { method, args: parts.into_iter().map(Type::parse).collect(), result: Type::parse(result) }
}
