// Turns clouds of points with the mouse: nearest points last, sizes by depth. Coordinates: x right, y down, z forward.
"use strict";
const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

for (const canvas of document.querySelectorAll("canvas.cloud")) {
  const places = new Int16Array(decode(canvas.dataset.places).buffer);
  const shades = decode(canvas.dataset.shades);
  const count = places.length / 3;
  const context = canvas.getContext("2d");
  const depth = new Float32Array(count), across = new Float32Array(count), down = new Float32Array(count);
  const order = Array.from({ length: count }, (_, k) => k);
  let yaw = 0.4, pitch = 0.2, zoom = 1;

  const draw = () => {
    const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    for (let k = 0; k < count; k++) {
      const [x, y, z] = [places[3 * k], places[3 * k + 1], places[3 * k + 2]].map((v) => v / 16383);
      const turned = cy * z - sy * x;
      across[k] = cy * x + sy * z;
      down[k] = cp * y + sp * turned;
      depth[k] = cp * turned - sp * y;
    }
    order.sort((a, b) => depth[b] - depth[a]);
    context.fillStyle = "#111";
    context.fillRect(0, 0, canvas.width, canvas.height);
    const scale = zoom * 0.42 * canvas.height;
    for (const k of order) {
      const near = 3 / (3 + depth[k]);
      if (near <= 0) continue;
      const size = Math.max(1, 2.2 * zoom * near);
      context.fillStyle = `rgb(${shades[3 * k]},${shades[3 * k + 1]},${shades[3 * k + 2]})`;
      context.fillRect(canvas.width / 2 + scale * near * across[k], canvas.height / 2 + scale * near * down[k], size, size);
    }
  };
  canvas.addEventListener("pointermove", (event) => {
    if (!event.buttons) return;
    yaw += event.movementX / 150;
    pitch = Math.max(-1.5, Math.min(1.5, pitch + event.movementY / 150));
    draw();
  });
  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom *= Math.exp(-event.deltaY / 800);
    draw();
  }, { passive: false });
  draw();
}
