/** Finding a volume by what a person calls it: its id or its exact name, nothing like it. */
import { notFound, StorageError } from "@libstorage/model";

interface Named {
  readonly id: string;
  readonly name?: string | undefined;
}

export interface Found<T> {
  readonly service: string;
  readonly object: T;
}

/**
 * A filter that lets at least the wanted object through, so that the server need not send all.
 * Servers of the reference ignore it and send all; what comes is compared again.
 */
export function filterFor(text: string): string | undefined {
  // What needs escaping is not worth the ways in which servers unescape it.
  return /^[A-Za-z0-9_-][A-Za-z0-9_.-]*$/.test(text) ? `(|(id=${text})(name=${text}))` : undefined;
}

/**
 * @throws {StorageError} `not-found`; `failed-precondition` when several objects are called so, listing them
 */
export function findNamed<T extends Named>(
  what: string,
  text: string,
  byService: Readonly<Record<string, Readonly<Record<string, T>>>>,
): Found<T> {
  const found: Found<T>[] = [];
  for (const [service, objects] of Object.entries(byService))
    for (const object of Object.values(objects))
      if (object.id === text || object.name === text) found.push({ service, object });
  const [first] = found;
  if (first === undefined) {
    const { code, message, data } = notFound(what, text);
    throw new StorageError(code, `${message}; "libstorage ${what} ls" lists those there are`, data);
  }
  if (found.length === 1) return first;
  const ids = found.map(({ service, object }) => `${object.id} in ${service}`).join(", ");
  throw new StorageError(
    "failed-precondition",
    `${found.length} ${what}s are called ${text}: ${ids}; name one by its id${new Set(found.map(({ service }) => service)).size > 1 ? " and --service" : ""}`,
    { name: text, candidates: found.map(({ service, object }) => ({ service, id: object.id })) },
  );
}
