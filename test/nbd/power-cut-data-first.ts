/**
 * Loaded before the command line, it makes a server that is wrong: bytes reach the disk's file before their record is in the log
 * (against R31). The proof of power cuts must find it out.
 */
import { Disk } from '../../src/store/disk.ts'

const right = Disk.prototype.recordWrites
Disk.prototype.recordWrites = async function (writes, move) {
  await move?.()
  return await right.call(this, writes, move === undefined ? undefined : () => undefined)
}
