;; At most 10 NSENDs for the life of the certificate that names this program; the 11th, and every later one, is refused
;; with code 10. Everything else passes.
;;
;; It counts in the first four bytes of its persistent memory, which outlive the session.
(module
  (import "monitor" "memory" (memory 1))
  ;; What is allocated for one call is freed after it, so that the last place is always free again.
  (global $next (mut i32) (i32.const 1024))
  (func (export "malloc") (param $len i32) (result i32)
    (local $place i32)
    (local.set $place (global.get $next))
    (global.set $next (i32.and
      (i32.add (i32.add (local.get $place) (local.get $len)) (i32.const 15))
      (i32.const -16)))
    (block $fits
      (loop $grow
        (br_if $fits (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
        (br_if $grow (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))
        (global.set $next (local.get $place))
        (return (i32.const 0))))
    (local.get $place))
  (func (export "free") (param $place i32)
    (if (i32.lt_u (local.get $place) (global.get $next))
      (then (global.set $next (local.get $place)))))
  (func (export "check_pktlab_message_nsend")
    (param $sktid i32) (param $family i32) (param $protocol i32) (param $time i64) (param $tag i32)
    (param $address_len i32) (param $address i32) (param $port_len i32) (param $port i32) (param $data_len i32)
    (param $persistent i32) (param $persistent_len i32) (result i32)
    (if (i32.ge_u (i32.load (local.get $persistent)) (i32.const 10)) (then (return (i32.const 10))))
    (i32.store (local.get $persistent) (i32.add (i32.load (local.get $persistent)) (i32.const 1)))
    (i32.const 0))
  (func (export "check_pktlab_message_nopen")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 0))
  (func (export "check_pktlab_message_nclose") (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "check_pktlab_message_ndata")
    (param i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 0))
  (func (export "check_pktlab_message_ncap") (param i32 i32 i32 i64 i32 i32) (result i32) (i32.const 0)))
