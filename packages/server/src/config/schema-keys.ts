/** The keys of a driver's schema: for looking them up, for the nearest known one, for the documentation. */
import * as v from "valibot";

export interface SchemaKey {
  /** Relative to the driver's block, dotted. */
  readonly key: string;
  /** `string`, `number`, `record`, … */
  readonly type: string;
  readonly isOptional: boolean;
  readonly fallback: string;
  readonly meaning: string;
  /** Whether any keys may stand below it. */
  readonly isOpen: boolean;
}

type Schema = v.GenericSchema & {
  readonly wrapped?: Schema;
  readonly pipe?: readonly Schema[];
  readonly entries?: Readonly<Record<string, Schema>>;
  readonly default?: unknown;
  /** Of a list of values, or of a union. */
  readonly options?: readonly (string | number | Schema)[];
};

const WRAPPERS = new Set(["optional", "exact_optional", "nullish", "undefinedable", "nullable"]);

interface Unwrapped {
  readonly schema: Schema;
  readonly isOptional: boolean;
  readonly fallback: unknown;
  readonly meaning: string;
}

function unwrap(outer: Schema): Unwrapped {
  let schema = outer;
  let isOptional = false;
  let fallback: unknown;
  let meaning = "";
  for (;;) {
    meaning ||= v.getDescription(schema as Parameters<typeof v.getDescription>[0]) ?? "";
    if (WRAPPERS.has(schema.type) && schema.wrapped !== undefined) {
      isOptional = true;
      fallback ??= typeof schema.default === "function" ? undefined : schema.default;
      schema = schema.wrapped;
    } else if (schema.pipe?.[0] !== undefined && schema.pipe[0] !== schema) {
      schema = schema.pipe[0];
    } else return { schema, isOptional, fallback, meaning };
  }
}

/** Flattens nested objects; a record or anything else stands as one key. */
export function keysOfSchema(root: v.GenericSchema, above = ""): readonly SchemaKey[] {
  const { schema } = unwrap(root as Schema);
  if (schema.entries === undefined) return [];
  return Object.entries(schema.entries).flatMap(([name, entry]) => {
    const key = above === "" ? name : `${above}.${name}`;
    const inner = unwrap(entry);
    if (inner.schema.entries !== undefined) return keysOfSchema(inner.schema, key);
    return [
      {
        key,
        type: typeOf(inner.schema),
        isOptional: inner.isOptional,
        fallback: plain(inner.fallback),
        meaning: inner.meaning,
        isOpen: inner.schema.type === "record" || inner.schema.type === "any",
      },
    ];
  });
}

/** In a word; of what is one of several things, all of them. */
function typeOf({ type, options }: Schema): string {
  if (options === undefined) return type;
  const each = options.map((one) => (typeof one === "object" ? typeOf(unwrap(one).schema) : one));
  return [...new Set(each)].join(", ");
}

function plain(value: unknown): string {
  if (value === undefined) return "";
  return typeof value === "string" ? value : (JSON.stringify(value) ?? "");
}
