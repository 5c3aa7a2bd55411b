/** Every exporter there is, by the name that a service's configuration uses. */
import type { ExporterModule } from "../core/exporter.js";
import { iscsiLio } from "./iscsi-lio/index.js";

export const EXPORTERS = { "iscsi-lio": iscsiLio } as const satisfies Record<
  string,
  ExporterModule
>;
