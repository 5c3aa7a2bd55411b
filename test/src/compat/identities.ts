/**
 * Ids that this server gave where the reference had given others: task numbers, and volumes after a
 * request that only one of the two accepted. Later requests and answers are translated.
 */
import type { Recorded, RecordedResponse } from "./traces.js";
import type { Answer } from "./compare.js";

/** Numbers of tasks and ids of volumes do not mix: a number may well be both. */
export class Identities {
  readonly #ids = new Map<string, string>();
  readonly #tasks = new Map<number, number>();

  /** Learns from the answers to a request that made something. */
  learn({ request, response }: Recorded, answer: Answer): void {
    const was = idIn(response.body);
    const is = idIn(answer.body);
    if (response.status === 202 || response.status === 408) {
      if (typeof was === "number" && typeof is === "number") this.#tasks.set(was, is);
    } else if (request.method === "POST" && response.status === 201 && typeof was === "string")
      // What was not made here must not be taken for what is made next.
      this.#ids.set(was, typeof is === "string" ? is : `never-made-${was}`);
  }

  path(path: string): string {
    const [head = "", query] = path.split("?", 2);
    const segments = head.split("/");
    const translated = segments.map((segment, at) =>
      segments[at - 1] === "tasks"
        ? String(this.#tasks.get(Number(segment)) ?? segment)
        : this.#id(segment),
    );
    return translated.join("/") + (query === undefined ? "" : `?${query}`);
  }

  response(response: RecordedResponse): RecordedResponse {
    if (!response.body?.startsWith("{")) return response;
    const value = this.#value(JSON.parse(response.body));
    return { ...response, body: JSON.stringify(value, null, 2) };
  }

  #id(id: string): string {
    return this.#ids.get(id) ?? id;
  }

  #taskText(text: string): string {
    if (!/^\d+$/.test(text)) return text;
    // What was no task here must not be taken for another one.
    return String(this.#tasks.get(Number(text)) ?? `no-task-${text}`);
  }

  #value(value: unknown, name?: string): unknown {
    if (typeof value === "string") return this.#id(value);
    if (typeof value === "number") return name === "id" ? (this.#tasks.get(value) ?? value) : value;
    if (Array.isArray(value)) return value.map((item) => this.#value(item));
    if (typeof value !== "object" || value === null) return value;
    const entries = Object.entries(value).map(([key, member]): [string, unknown] => [
      isTask(member) ? this.#taskText(key) : this.#id(key),
      this.#value(member, key),
    ]);
    return Object.fromEntries(entries);
  }
}

function isTask(value: unknown): boolean {
  return typeof value === "object" && value !== null && "queueTime" in value;
}

function idIn(body: string | null): unknown {
  if (!body?.startsWith("{")) return undefined;
  const { id } = JSON.parse(body) as { id?: unknown };
  return id;
}
