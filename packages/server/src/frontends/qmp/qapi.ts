/**
 * Arguments of commands as QEMU's QAPI describes them: types as values, from which input is checked in QAPI's order
 * and words, and `query-qmp-schema` is answered.
 */
import { QmpFailure } from "./failure.js";

export type QapiType =
  | { readonly kind: "str" }
  | { readonly kind: "bool" }
  | { readonly kind: "int"; readonly name: string; readonly most: number }
  | { readonly kind: "enum"; readonly name: string; readonly values: readonly string[] }
  | { readonly kind: "list"; readonly of: QapiType }
  | QapiStruct
  | QapiUnion;

export interface QapiStruct {
  readonly kind: "struct";
  readonly name: string;
  readonly members: Members;
}

/** Members whose names end in `?` may be left out. */
export type Members = Readonly<Record<string, QapiType>>;

/** What is in a union besides its base depends on one member of the base. */
export interface QapiUnion {
  readonly kind: "union";
  readonly name: string;
  readonly base: Members;
  readonly tag: string;
  readonly variants: Readonly<Record<string, QapiStruct>>;
}

export const str: QapiType = { kind: "str" };
export const bool: QapiType = { kind: "bool" };
export const uint16: QapiType = { kind: "int", name: "uint16_t", most: 0xffff };
export const uint32: QapiType = { kind: "int", name: "uint32_t", most: 0xffff_ffff };
export const size: QapiType = { kind: "int", name: "uint64", most: Number.MAX_SAFE_INTEGER };

export function struct(name: string, members: Members): QapiStruct {
  return { kind: "struct", name, members };
}

export function enumeration(name: string, ...values: string[]): QapiType {
  return { kind: "enum", name, values };
}

export type Arguments = Readonly<Record<string, unknown>>;

const EXPECTED = { str: "string", bool: "boolean", enum: "string", list: "array" } as const;

function wrongType(path: string, expected: string): QmpFailure {
  return new QmpFailure(`Invalid parameter type for '${path}', expected: ${expected}`);
}

function isObject(value: unknown): value is Arguments {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Checks a value, and all in it. @throws {QmpFailure} with QAPI's words */
function check(type: QapiType, value: unknown, path: string): void {
  switch (type.kind) {
    case "str":
      if (typeof value !== "string") throw wrongType(path, EXPECTED.str);
      return;
    case "bool":
      if (typeof value !== "boolean") throw wrongType(path, EXPECTED.bool);
      return;
    case "int":
      checkInteger(type, value, path);
      return;
    case "enum":
      if (typeof value !== "string") throw wrongType(path, EXPECTED.enum);
      if (!type.values.includes(value))
        throw new QmpFailure(`Parameter '${path}' does not accept value '${value}'`);
      return;
    case "list":
      if (!Array.isArray(value)) throw wrongType(path, EXPECTED.list);
      for (const [index, item] of value.entries()) check(type.of, item, `${path}[${index}]`);
      return;
    case "struct":
    case "union":
      if (!isObject(value)) throw wrongType(path, "object");
      checkObject(type, value, `${path}.`);
      return;
    default:
      return type satisfies never;
  }
}

function checkInteger(
  { name, most }: Extract<QapiType, { kind: "int" }>,
  value: unknown,
  path: string,
): void {
  if (typeof value !== "number") throw wrongType(path, "integer");
  if (!Number.isInteger(value) || value < 0 || value > most)
    throw new QmpFailure(`Parameter '${path}' expects ${name}`);
}

function nameOf(key: string): { readonly name: string; readonly isOptional: boolean } {
  const isOptional = key.endsWith("?");
  return { name: isOptional ? key.slice(0, -1) : key, isOptional };
}

function checkMembers(members: Members, value: Arguments, prefix: string, known: Set<string>) {
  for (const [key, type] of Object.entries(members)) {
    const { name, isOptional } = nameOf(key);
    known.add(name);
    if (Object.hasOwn(value, name)) check(type, value[name], prefix + name);
    else if (!isOptional) throw new QmpFailure(`Parameter '${prefix}${name}' is missing`);
  }
}

function checkObject(type: QapiStruct | QapiUnion, value: Arguments, prefix: string): void {
  const known = new Set<string>();
  if (type.kind === "struct") checkMembers(type.members, value, prefix, known);
  else {
    checkMembers(type.base, value, prefix, known);
    const variant = type.variants[String(value[type.tag])];
    if (variant !== undefined) checkMembers(variant.members, value, prefix, known);
  }
  const unknown = Object.keys(value).find((name) => !known.has(name));
  if (unknown !== undefined) throw new QmpFailure(`Parameter '${prefix}${unknown}' is unexpected`);
}

/** @throws {QmpFailure} */
export function checkArguments(type: QapiStruct | QapiUnion, value: Arguments): void {
  checkObject(type, value, "");
}

/** One entry of `query-qmp-schema`. */
export type SchemaInfo = Readonly<Record<string, unknown>>;

/** Collects the types that commands and events need, each once. */
export class SchemaPage {
  readonly #entries = new Map<string, SchemaInfo>();

  get entries(): readonly SchemaInfo[] {
    return [...this.#entries.values()];
  }

  command(name: string, args: QapiType, returns: QapiType | undefined): void {
    const ret = returns === undefined ? this.add(struct("q_empty", {})) : this.add(returns);
    this.#entries.set(`command ${name}`, {
      name,
      "meta-type": "command",
      "arg-type": this.add(args),
      "ret-type": ret,
    });
  }

  event(name: string, data: QapiStruct): void {
    this.#entries.set(`event ${name}`, { name, "meta-type": "event", "arg-type": this.add(data) });
  }

  /** @returns the name under which the type stands */
  add(type: QapiType): string {
    if (type.kind === "str") return this.#builtin("str", "string");
    if (type.kind === "bool") return this.#builtin("bool", "boolean");
    if (type.kind === "int") return this.#builtin("int", "int");
    if (type.kind === "list") {
      const element = this.add(type.of);
      const name = `[${element}]`;
      this.#put(name, () => ({ name, "meta-type": "array", "element-type": element }));
      return name;
    }
    this.#put(type.name, () => this.#describe(type));
    return type.name;
  }

  #put(name: string, make: () => SchemaInfo): void {
    if (this.#entries.has(name)) return;
    // A type may be used within itself.
    this.#entries.set(name, {});
    this.#entries.set(name, make());
  }

  #builtin(name: string, json: string): string {
    this.#put(name, () => ({ name, "meta-type": "builtin", "json-type": json }));
    return name;
  }

  #describe(type: Extract<QapiType, { kind: "enum" | "struct" | "union" }>): SchemaInfo {
    const { name } = type;
    if (type.kind === "enum") {
      const members = type.values.map((value) => ({ name: value }));
      return { name, "meta-type": "enum", members, values: type.values };
    }
    if (type.kind === "struct")
      return { name, "meta-type": "object", members: this.#members(type.members) };
    return {
      name,
      "meta-type": "object",
      members: this.#members(type.base),
      tag: type.tag,
      variants: Object.entries(type.variants).map(([value, variant]) => ({
        case: value,
        type: this.add(variant),
      })),
    };
  }

  #members(members: Members): readonly SchemaInfo[] {
    return Object.entries(members).map(([key, type]) => {
      const { name, isOptional } = nameOf(key);
      // QEMU marks what may be left out by a default of null.
      return { name, type: this.add(type), ...(isOptional && { default: null }) };
    });
  }
}
