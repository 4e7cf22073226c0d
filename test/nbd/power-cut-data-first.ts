/**
 * Loaded before the command line, it makes a server that is wrong: bytes reach the disk's file before their record is in the log
 * (against R31). The proof of power cuts must find it out.
 */
import { Core } from '../../src/store/core.ts'

const right = Core.prototype.recordServed
Core.prototype.recordServed = async function (id, range, move) {
  await move()
  await right.call(this, id, range, () => undefined)
}
