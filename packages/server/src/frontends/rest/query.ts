/** The query of a request: names without case, values as the route table says. */
import { parseFlag, parseQueryValue } from "@libstorage/model";
import type { Route } from "@libstorage/model";

export class Query {
  readonly #values = new Map<string, string[]>();
  readonly #names = new Set<string>();

  constructor(text: string) {
    for (const [name, value] of new URLSearchParams(text)) {
      this.#names.add(name);
      const lower = name.toLowerCase();
      const values = this.#values.get(lower);
      if (values === undefined) this.#values.set(lower, [value]);
      else values.push(value);
    }
  }

  /** An action is named exactly, as the reference's router does. */
  hasAction(name: string): boolean {
    return this.#names.has(name);
  }

  values(name: string): readonly string[] | undefined {
    return this.#values.get(name.toLowerCase());
  }

  isSet(name: string): boolean {
    const values = this.values(name);
    return values !== undefined && values.length === 1 && parseFlag(values[0] ?? "");
  }

  /**
   * The parameters that a route takes; others are ignored, and none replaces a path variable.
   * @throws {StorageError} `invalid-argument`
   */
  paramsOf(route: Route): Record<string, unknown> {
    const params: Record<string, unknown> = {};
    if (this.#values.size === 0) return params;
    for (const [name, kind] of Object.entries(route.query)) {
      const values = this.values(name);
      if (values === undefined) continue;
      const value = parseQueryValue(name, kind, values);
      params[name] = name === "filter" ? filterText(String(value)) : value;
    }
    return params;
  }
}

/** A filter is percent-decoded once more; a bare parameter is the text `true` (section 7.1). */
function filterText(text: string): string {
  if (text === "") return "true";
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const NO_QUERY = new Query("");
