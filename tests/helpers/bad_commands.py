"""Commands that must be refused, generated from the schema of the settings and from Hydra's grammar."""

from hypothesis import strategies as st

from lockstep.config.schema import RunConfig
from lockstep.config.search_config import SearchConfig

SEARCH = ("-m", "hydra/sweeper=search", "data.val_size=100", "optim.lr=interval(0.1,1)")
WORDS = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
GREAT = st.integers(10**9 + 1, 10**40)
NO_NUMBERS = ("true", "word", "nan", "inf", "-inf", "1e400", "[1]", "{a:1}")


def settings_of(schema, key=""):
    """Each setting's key, its JSON schema, and the options that have it, of a JSON schema with references."""
    root = RunConfig.model_json_schema()["$defs"]

    def walk(node, key, options):
        if "discriminator" in node:
            group = key
            for name, reference in node["discriminator"]["mapping"].items():
                if (group, name) in (
                    ("data", "digits"),
                    ("model", "mlp"),
                    ("optim", "sgd"),
                    ("optim", "adam"),
                ):
                    yield from walk(root[reference.rpartition("/")[2]], key, (f"{group}={name}",))
        elif "$ref" in node:
            yield from walk(root[node["$ref"].rpartition("/")[2]], key, options)
        elif "properties" in node:
            for name, inner in node["properties"].items():
                if name != "name":
                    yield from walk(inner, f"{key}.{name}" if key else name, options)
        else:
            yield key, node, options

    return list(walk(schema, key, ()))


def bad_values(schema):
    """Texts that a setting with this JSON schema does not allow."""
    *_, last = kinds = schema.get("anyOf", [schema])
    node, is_optional = kinds[0], last.get("type") == "null"
    kind, found = node.get("type"), [] if is_optional else [st.just("null")]
    if "enum" in node:
        found.append(WORDS.filter(lambda word: word not in (*node["enum"], "null", "true", "false")))
    elif kind == "integer":
        low = node.get("minimum", node.get("exclusiveMinimum"))
        found += [st.integers(-(10**30), low - 1).map(str), st.sampled_from(("1.5", "1e26", *NO_NUMBERS))]
        found.append(st.integers(node.get("maximum", 2**63) + 1, 10**40).map(str))
    elif kind == "number":
        low = node.get("minimum", node.get("exclusiveMinimum"))
        found += [st.floats(low - 1e6, low - 1e-6).map(str), st.sampled_from(NO_NUMBERS)]
        if "exclusiveMaximum" in node:
            found.append(st.floats(node["exclusiveMaximum"], 1e30).map(str))
    elif kind == "boolean":
        found.append(st.sampled_from(("2", "word", "[true]", "{a:1}", "1.5")))
    elif kind == "array":
        found.append(st.sampled_from(("[]", "[0.9,nan,1]", "[-1]", "[[1]]", "word", "0.5", "[a]", "[null]")))
        found.append(GREAT.map("[{}]".format))
    else:
        found.append(st.sampled_from(("[a]", "{a:1}", *([""] if node.get("minLength") else []))))
    return st.one_of(found)


def _set(setting):
    key, schema, options = setting
    return bad_values(schema).map(lambda text: ((*options, f"{key}={text}"), key, text))


SETTINGS = settings_of(RunConfig.model_json_schema())
OF_SEARCHES = settings_of(SearchConfig.model_json_schema(), "hydra.sweeper")
KEYS = st.sampled_from([key for key, _, options in SETTINGS if "optim=adam" not in options])
ENDS = st.sampled_from(("0", "5", "-1", "inf", "-inf", "nan", "1e30", "1e7", str(10**30), "1e-320", "a", ""))
WRAPPED = st.sampled_from(
    ("{}", "shuffle({})", "sort({})", "tag(t,{})", "int({})", "float({})", "tag(log,{})")
)
GRAMMAR = st.text("[]{}()'\",=:$\\ ~+*a1.-", max_size=12)


def misspelt(name):
    """The name with one letter more."""
    return st.integers(0, len(name)).map(lambda at: f"{name[:at]}q{name[at:]}")


REFUSED = st.one_of(
    st.sampled_from(SETTINGS).flatmap(_set),
    st.sampled_from(OF_SEARCHES).flatmap(_set).map(lambda bad: ((*SEARCH, *bad[0]), *bad[1:])),
    KEYS.flatmap(misspelt).map(lambda key: ((f"{key}=1",), key, "1")),
    st.sampled_from(("model", "optim", "data", "trainer", "tracking", "experiment"))
    .flatmap(lambda group: st.tuples(st.just(group), WORDS))
    .filter(lambda pair: pair[1] not in ("null", "true", "false", "nan", "inf"))
    .map(lambda pair: ((f"{pair[0]}={pair[1]}_q",), *pair)),
    st.tuples(KEYS, st.sampled_from(("1,2", "range(0,3)", "choice(1,2)", "interval(0,1)", "glob(*)"))).map(
        lambda pair: ((f"{pair[0]}={pair[1]}",), *pair)
    ),
    st.sampled_from(("inf", "1e30", "1e7", str(10**30))).flatmap(
        lambda end: WRAPPED.map(lambda form: (("-m", f"seed={form.format(f'range(0,{end})')}"), "seed", end))
    ),
)
"""Commands that are wrong, each with the key and the value that make it so."""

ODD = st.one_of(
    st.tuples(KEYS, GRAMMAR).map(lambda pair: (f"{pair[0]}={pair[1]}",)),
    st.tuples(GRAMMAR, GRAMMAR).map(lambda pair: (f"{pair[0]}={pair[1]}",)),
    st.tuples(
        st.sampled_from((("-m",), SEARCH)),
        st.sampled_from(("seed", "trainer.epochs", "optim", "optim.momentum")),
        st.tuples(st.sampled_from(("range", "interval", "choice")), st.lists(ENDS, max_size=4), WRAPPED),
    ).map(lambda of: (*of[0], f"{of[1]}={of[2][2].format(of[2][0] + '(' + ','.join(of[2][1]) + ')')}")),
    st.tuples(st.sampled_from(("+", "++", "~", "")), KEYS, GRAMMAR).map(
        lambda of: (f"{of[0]}{of[1]}={of[2]}",)
    ),
)
"""Commands that may be wrong."""
