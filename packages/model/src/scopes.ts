/**
 * One configuration, seen from different places: a tree of keys compared without case, under layers that
 * take precedence (flags, environment), looked up through scopes. Section 15.1 of the contract.
 */

/** What is wrong with one key. The path is spelled as the file spells it. */
export interface ConfigProblem {
  readonly path: string;
  readonly message: string;
}

/** `libstorage.server.tasks.exeTimeout: must be …` */
export function formatProblem({ path, message }: ConfigProblem): string {
  return path === "" ? message : `${path}: ${message}`;
}

/** A value and where it was found: a path of the file, or the name of a variable or flag. */
export interface Found {
  readonly path: string;
  readonly value: unknown;
}

/** Where values come from. `path` is lower-case and dotted. */
export interface ConfigLayer {
  find(path: string): Found | undefined;
}

interface Branch {
  readonly spelling: string;
  readonly children: Map<string, ConfigNode>;
}
interface Leaf {
  readonly spelling: string;
  /** A scalar, a list, or null for a key without value. */
  readonly value: unknown;
}
type ConfigNode = Branch | Leaf;

const isBranch = (node: ConfigNode): node is Branch => "children" in node;

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A tree of keys. A dotted key (`libstorage.tls.disabled: true`) means the same as nested ones. */
export class ConfigTree implements ConfigLayer {
  readonly #root: Branch = { spelling: "", children: new Map() };
  /** Keys that occur twice and the like, found while building. */
  readonly problems: ConfigProblem[] = [];

  constructor(value: unknown = {}) {
    if (value === null || value === undefined) return;
    if (isMap(value)) this.#add(this.#root, value, []);
    else
      this.problems.push({
        path: "",
        message: "the configuration must be a map of keys, such as libstorage:",
      });
  }

  #add(to: Branch, from: Record<string, unknown>, above: readonly string[]): void {
    for (const [key, value] of Object.entries(from)) {
      const names = key.split(".");
      const path = [...above, ...names];
      if (names.some((name) => name === "")) {
        this.problems.push({ path: path.join("."), message: "a key must not be empty" });
        continue;
      }
      const last = names.pop() ?? "";
      const parent = names.reduce<Branch | undefined>(
        (branch, name) => branch && this.#branch(branch, name, path),
        to,
      );
      if (parent !== undefined) this.#put(parent, last, value, path);
    }
  }

  #branch(parent: Branch, name: string, path: readonly string[]): Branch | undefined {
    const there = parent.children.get(name.toLowerCase());
    if (there !== undefined && isBranch(there)) return there;
    if (there !== undefined && there.value !== null) {
      this.problems.push({
        path: path.join("."),
        message: `"${there.spelling}" has a value of its own, so it cannot hold further keys`,
      });
      return undefined;
    }
    const branch: Branch = { spelling: name, children: new Map() };
    parent.children.set(name.toLowerCase(), branch);
    return branch;
  }

  #put(parent: Branch, name: string, given: unknown, path: readonly string[]): void {
    const value = given ?? null;
    if (isMap(value)) {
      const branch = this.#branch(parent, name, path);
      if (branch !== undefined) this.#add(branch, value, path);
      return;
    }
    const there = parent.children.get(name.toLowerCase());
    if (there !== undefined) {
      // `services: {a: }` beside `services.a.driver: x` is fine; two values are not.
      if (value === null) return;
      if (isBranch(there) || there.value !== null) {
        const other = there.spelling === name ? "" : ` (also spelled "${there.spelling}")`;
        this.problems.push({ path: path.join("."), message: `the key stands there twice${other}` });
        return;
      }
    }
    parent.children.set(name.toLowerCase(), { spelling: name, value });
  }

  #walk(path: string): { readonly node: ConfigNode; readonly spelled: string } | undefined {
    let node: ConfigNode = this.#root;
    const spelled: string[] = [];
    for (const name of path === "" ? [] : path.split(".")) {
      const next: ConfigNode | undefined = isBranch(node)
        ? node.children.get(name.toLowerCase())
        : undefined;
      if (next === undefined) return undefined;
      spelled.push(next.spelling);
      node = next;
    }
    return { node, spelled: spelled.join(".") };
  }

  /** A scalar or a list; keys without a value count as not set. */
  find(path: string): Found | undefined {
    const at = this.#walk(path);
    if (at === undefined || isBranch(at.node) || at.node.value === null) return undefined;
    return { path: at.spelled, value: at.node.value };
  }

  /** Whether the key is written at all, with or without a value or keys below it. */
  has(path: string): boolean {
    return this.#walk(path) !== undefined;
  }

  /** The names directly below a path, as spelled. */
  names(path: string): readonly string[] {
    const at = this.#walk(path);
    if (at === undefined || !isBranch(at.node)) return [];
    return [...at.node.children.values()].map((child) => child.spelling);
  }

  /** Every key that has a value, a list, or nothing below it. */
  leaves(): readonly Found[] {
    const found: Found[] = [];
    const collect = (node: ConfigNode, path: readonly string[]): void => {
      if (!isBranch(node)) found.push({ path: path.join("."), value: node.value });
      else for (const child of node.children.values()) collect(child, [...path, child.spelling]);
    };
    collect(this.#root, []);
    return found;
  }

  /** As plain objects, under a path or whole. */
  toObject(path = ""): unknown {
    const plain = (node: ConfigNode): unknown =>
      isBranch(node)
        ? Object.fromEntries([...node.children.values()].map((c) => [c.spelling, plain(c)]))
        : node.value;
    const at = this.#walk(path);
    return at === undefined ? undefined : plain(at.node);
  }

  /** A new tree with the other's values over this one's. Lists are replaced, not joined. */
  merge(other: ConfigTree): ConfigTree {
    const merged = new ConfigTree();
    const copy = (from: Branch, to: Branch): void => {
      for (const [key, node] of from.children) {
        const there = to.children.get(key);
        if (!isBranch(node)) {
          if (node.value !== null || there === undefined) to.children.set(key, node);
          continue;
        }
        const branch: Branch =
          there !== undefined && isBranch(there)
            ? there
            : { spelling: node.spelling, children: new Map() };
        to.children.set(key, branch);
        copy(node, branch);
      }
    };
    copy(this.#root, merged.#root);
    copy(other.#root, merged.#root);
    merged.problems.push(...this.problems, ...other.problems);
    return merged;
  }
}

/** `libstorage.tls.disabled` → `LIBSTORAGE_TLS_DISABLED` */
export function variableOfKey(key: string): string {
  return key.toUpperCase().replace(/[^A-Z0-9]/g, "_");
}

/** `libstorage.tls.disabled` → `libstorageTlsDisabled`, the long flag of a key. */
export function flagOfKey(key: string): string {
  return key.replace(/\.(.)/g, (_, letter: string) => letter.toUpperCase());
}

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The environment as a layer. A key of one part (`driver`) has no variable: `DRIVER` may mean anything.
 * An empty variable counts as not set.
 */
export function environmentLayer(env: Environment): ConfigLayer {
  return {
    find(path) {
      if (!path.includes(".")) return undefined;
      const name = variableOfKey(path);
      const value = env[name];
      return value === undefined || value === "" ? undefined : { path: name, value };
    },
  };
}

/**
 * Replaces `$NAME` and `${NAME}` by environment variables; `$$` is one `$`.
 * @returns the text, and the names that are not set (replaced by nothing)
 */
export function expandVariables(
  text: string,
  env: Environment,
): { readonly text: string; readonly missing: readonly string[] } {
  const missing: string[] = [];
  const expanded = text.replace(
    /\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))/g,
    (_, braced: string | undefined, bare: string | undefined) => {
      const name = braced ?? bare;
      if (name === undefined) return "$";
      const value = env[name];
      if (value === undefined) missing.push(name);
      return value ?? "";
    },
  );
  return { text: expanded, missing };
}

/** `expandVariables` for every text in a value as the YAML parser gives it; keys stay as they are. */
export function expandTree(
  value: unknown,
  env: Environment,
  problems: ConfigProblem[],
  path: readonly string[] = [],
): unknown {
  if (typeof value === "string") {
    const { text, missing } = expandVariables(value, env);
    for (const name of missing)
      problems.push({
        path: path.join("."),
        message: `the environment variable ${name} is not set; write $$ for a plain dollar sign`,
      });
    // A text with a hole in it would only be the cause of further problems.
    return missing.length === 0 ? text : value;
  }
  if (Array.isArray(value))
    return value.map((item, index) => expandTree(item, env, problems, [...path, String(index)]));
  if (!isMap(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [
      key,
      expandTree(item, env, problems, [...path, key]),
    ]),
  );
}

/**
 * Every place at which a key is looked for, first one first: the innermost scope with every combination
 * of outer ones, then without it.
 * @param scopes outermost first, for example `["rexray", "libstorage.server"]`
 */
export function placesOf(scopes: readonly string[], key: string): readonly string[] {
  const inner = scopes.at(-1);
  if (inner === undefined) return [key];
  const outer = scopes.slice(0, -1);
  return [...placesOf(outer, `${inner}.${key}`), ...placesOf(outer, key)];
}

/** A configuration as one side, service or module sees it. */
export class ScopedConfig {
  readonly #layers: readonly ConfigLayer[];
  readonly scopes: readonly string[];

  /** @param layers the strongest first: flags, environment, file, defaults */
  constructor(layers: readonly ConfigLayer[], scopes: readonly string[] = []) {
    this.#layers = layers;
    this.scopes = scopes;
  }

  /** The same configuration from one scope further in. */
  within(scope: string): ScopedConfig {
    return new ScopedConfig(this.#layers, [...this.scopes, scope]);
  }

  /** The same layers under other scopes. */
  under(scopes: readonly string[]): ScopedConfig {
    return new ScopedConfig(this.#layers, scopes);
  }

  /** The value that counts for a key, seen from these scopes. */
  find(key: string): Found | undefined {
    return this.findAt(placesOf(this.scopes, key));
  }

  /** The first of several keys that is set; each is tried through all scopes before the next. */
  findFirst(keys: readonly string[]): Found | undefined {
    for (const key of keys) {
      const found = this.find(key);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** The first of some exact places that is set, without scopes. */
  findAt(places: readonly string[]): Found | undefined {
    for (const place of places)
      for (const layer of this.#layers) {
        const found = layer.find(place.toLowerCase());
        if (found !== undefined) return found;
      }
    return undefined;
  }
}

const TRUE = /^(?:true|t|yes|on|1)$/i;
const FALSE = /^(?:false|f|no|off|0)$/i;

/** @returns undefined when the value is no boolean in any spelling */
export function booleanOf(value: unknown): boolean | undefined {
  if (typeof value === "boolean") return value;
  const text = typeof value === "string" || typeof value === "number" ? String(value) : "";
  if (TRUE.test(text)) return true;
  return FALSE.test(text) ? false : undefined;
}
