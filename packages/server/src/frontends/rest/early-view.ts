/** `?model=early`: replies to reads under the field names of the early model (section 2). */
import * as model from "@libstorage/model";
import { StorageError } from "@libstorage/model";
import type { Operation } from "@libstorage/model";

type View = (reply: never) => unknown;

/** The view of an object is made once and kept as long as the object. */
function kept<T extends object, U extends object>(make: (value: T) => U): (value: T) => U {
  const views = new WeakMap<T, U>();
  return (value) => {
    let view = views.get(value);
    if (view === undefined) {
      view = Object.freeze(make(value));
      if (Object.isFrozen(value)) views.set(value, view);
    }
    return view;
  };
}

function mapped<T, U>(
  view: (value: T) => U,
): (map: Readonly<Record<string, T>>) => Record<string, U> {
  return kept((map) =>
    Object.fromEntries(Object.entries(map).map(([key, value]) => [key, view(value)])),
  );
}

const volume = kept(model.earlyVolume);
const snapshot = kept(model.earlySnapshot);
const service = kept(model.earlyService);

/** The reads that have an early view. */
export const EARLY_VIEWS: { readonly [Op in Operation]?: View } = {
  volumes: mapped(mapped(volume)),
  volumesByService: mapped(volume),
  volumeInspect: volume,
  snapshots: mapped(mapped(snapshot)),
  snapshotsByService: mapped(snapshot),
  snapshotInspect: snapshot,
  services: mapped(service),
  serviceInspect: service,
};

/** @throws {StorageError} `invalid-argument` for a model that does not exist, or not for this route */
export function viewOf(operation: Operation, name: string, reply: unknown): unknown {
  if (name !== "early")
    throw new StorageError("invalid-argument", `there is no model "${name}"; known is "early"`);
  const view = EARLY_VIEWS[operation];
  if (view === undefined)
    throw new StorageError("invalid-argument", `${operation} has no view in the early model`);
  return view(reply as never);
}
