/** Lists from the inventory: made once per view while nothing changes, and the same object until then. */
import { parseFilter } from "@libstorage/model";

export interface ListQuery {
  readonly filter?: string;
  /** At most so many entries. */
  readonly limit?: number;
  /** Only entries whose id comes after this one. */
  readonly after?: string;
}

/** Views of one list that are kept: masks and callers are many, but few ask again and again. */
const MAX_VIEWS = 32;

type ById<T> = Record<string, T>;

/** Keyed by the array of records, which is another one as soon as a record changes. */
export class ListCache<R extends { readonly id: string }, T extends object> {
  readonly #lists = new WeakMap<readonly R[], Map<string, ById<T>>>();

  /** @param view what `present` depends on besides the record */
  list(
    records: readonly R[],
    view: string,
    present: (record: R) => T | undefined,
    { filter, limit, after }: ListQuery,
  ): ById<T> {
    if (filter !== undefined || limit !== undefined || after !== undefined)
      return build(records, present, filter, limit, after);
    const views = this.#lists.get(records) ?? new Map<string, ById<T>>();
    this.#lists.set(records, views);
    let list = views.get(view);
    if (list === undefined) {
      if (views.size >= MAX_VIEWS) views.clear();
      list = Object.freeze(build(records, present));
      views.set(view, list);
    }
    return list;
  }
}

function build<R extends { readonly id: string }, T extends object>(
  records: readonly R[],
  present: (record: R) => T | undefined,
  filter?: string,
  limit = Infinity,
  after?: string,
): ById<T> {
  const isWanted = filter === undefined ? undefined : parseFilter(filter);
  const list: ById<T> = {};
  let count = 0;
  for (const record of records) {
    if (count >= limit) break;
    if (after !== undefined && record.id <= after) continue;
    const object = present(record);
    if (object === undefined || isWanted?.(object) === false) continue;
    list[record.id] = object;
    count += 1;
  }
  return list;
}

/** A page of a list over all services; `after` is `SERVICE/ID`. Services without entries stay, as `{}`. */
export function pageOf<T>(
  all: Record<string, ById<T>>,
  limit?: number,
  after?: string,
): Record<string, ById<T>> {
  if (limit === undefined && after === undefined) return sameAsBefore(all);
  const [lastService = "", lastID = ""] = after?.split(/\/(.*)/s) ?? [];
  const isLeft = (service: string, id: string): boolean =>
    service === lastService ? id > lastID : service > lastService;
  let left = limit ?? Infinity;
  const page: Record<string, ById<T>> = {};
  for (const [service, list] of Object.entries(all)) {
    const entries = Object.entries(list)
      .filter(([id]) => isLeft(service, id))
      .slice(0, left);
    left -= entries.length;
    page[service] = Object.fromEntries(entries);
  }
  return page;
}

/** Keyed by the first of the lists, which is another one for every view. */
const unions = new WeakMap<object, object>();

/** The map that was answered last time, as long as all lists in it are the same objects. */
export function sameAsBefore<T extends Readonly<Record<string, object>>>(all: T): T {
  const [first] = Object.values(all);
  if (first === undefined) return all;
  const known = unions.get(first) as T | undefined;
  const names = Object.keys(all);
  const isSame =
    known !== undefined &&
    Object.keys(known).length === names.length &&
    names.every((name) => known[name] === all[name]);
  if (isSame) return known;
  const union = Object.freeze(all);
  unions.set(first, union);
  return union;
}
