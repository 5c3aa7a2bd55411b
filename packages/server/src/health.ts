/** How the server is, for `/health` and `/ready`. */
import type { CertificateHealth, Health } from "@libstorage/model";
import type { Storage } from "./core/storage.js";

/** A certificate that ends sooner than this many days is warned about. */
export const CERTIFICATE_WARNING_DAYS = 30;

export function healthOf(
  storage: Storage,
  isReady: boolean,
  certificates: readonly CertificateHealth[],
): Health {
  const warnings = [...storage.warnings];
  const { flaw } = storage.journal;
  if (flaw !== undefined) warnings.push(`the last change was refused: ${flaw}`);
  const services: Health["services"] = {};
  for (const [name, { driverName, inventory }] of storage.services) {
    const { volumes, snapshots } = inventory;
    const broken = [...volumes.all(), ...snapshots.all()].filter((one) => one.broken !== undefined);
    for (const one of broken) warnings.push(`service ${name}: ${one.id} is broken: ${one.broken}`);
    services[name] = {
      driver: driverName,
      volumes: volumes.size,
      snapshots: snapshots.size,
      broken: broken.length,
      ready: isReady,
    };
  }
  for (const { intent } of storage.operations.stuck.all())
    warnings.push(
      `${intent.operation} of ${intent.snapshotID ?? intent.volumeID} could not be cleared up and is tried again every minute; see the log`,
    );
  for (const { file, notAfter, daysLeft } of certificates)
    if (daysLeft < CERTIFICATE_WARNING_DAYS)
      warnings.push(`certificate ${file} ends on ${notAfter}, in ${Math.floor(daysLeft)} days`);
  return {
    status: warnings.length > 0 ? "warning" : "ok",
    services,
    warnings,
    ...(certificates.length > 0 && { certificates: [...certificates] }),
  };
}
