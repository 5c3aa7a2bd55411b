/** The body of a request against its schema: every problem at once, unknown members with the name that was meant. */
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import { nearest } from "./nearest.js";

export type JsonObject = Readonly<Record<string, unknown>>;

interface Problem {
  /** JSON pointer of the member. */
  readonly path: string;
  readonly message: string;
}

export function entriesOf(schema: v.GenericSchema): readonly string[] | undefined {
  return "entries" in schema && typeof schema.entries === "object" && schema.entries !== null
    ? Object.keys(schema.entries)
    : undefined;
}

function unknownMembers(schema: v.GenericSchema, body: JsonObject): Problem[] {
  const known = entriesOf(schema);
  if (known === undefined) return [];
  return Object.keys(body)
    .filter((name) => !known.includes(name))
    .map((name) => {
      const meant = nearest(name, known);
      const hint =
        meant === undefined ? `known are ${known.join(", ")}` : `did you mean "${meant}"?`;
      return { path: `/${name}`, message: `is not a member of this request; ${hint}` };
    });
}

function typeName({ expected }: v.BaseIssue<unknown>): string {
  return (expected ?? "").toLowerCase();
}

function problemOf(issue: v.BaseIssue<unknown>): Problem {
  const keys = (issue.path ?? []).map((item) => String(item.key));
  const path = `/${keys.join("/")}`;
  if (issue.received === "undefined") return { path, message: "is missing" };
  // Valibot's own texts quote what was sent; the types alone are shorter and quote no secret.
  const isType = issue.kind === "schema" && issue.expected !== null;
  return { path, message: isType ? `must be of type ${typeName(issue)}` : issue.message };
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Checks a body against its schema.
 * @returns the body as the schema has it
 * @throws {StorageError} `invalid-argument` with all problems at once, in the text and in `data.problems`
 */
export function checkBody(schema: v.GenericSchema, body: unknown): unknown {
  if (!isObject(body))
    throw new StorageError("invalid-argument", "the request body must be a JSON object");
  const unknown = unknownMembers(schema, body);
  const known = entriesOf(schema);
  const rest =
    unknown.length === 0
      ? body
      : Object.fromEntries(Object.entries(body).filter(([name]) => known?.includes(name)));
  const result = v.safeParse(schema, rest);
  if (result.success && unknown.length === 0) return result.output;
  const problems = [...unknown, ...(result.issues ?? []).map(problemOf)];
  const text = problems.map(({ path, message }) => `${path} ${message}`).join("; ");
  throw new StorageError("invalid-argument", `invalid request body: ${text}`, { problems });
}
