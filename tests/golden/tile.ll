define void @k15317734b8d699bb.0(ptr %args, i64 %begin, i64 %end) nounwind {
entry:
  %v6 = alloca [8 x float], align 64
  %v1 = load ptr, ptr %args, align 8
  %v2 = getelementptr inbounds ptr, ptr %args, i64 1
  %v3 = load ptr, ptr %v2, align 8
  %v4 = getelementptr inbounds ptr, ptr %args, i64 2
  %v5 = load ptr, ptr %v4, align 8
  store <8 x float> splat (float 0x0000000000000000), ptr %v6, align 64
  br label %k.7
k.7:
  %v9 = phi i64 [ 0, %entry ], [ %v20, %k.7 ]
  %v10 = getelementptr inbounds float, ptr %v1, i64 %v9
  %v11 = load float, ptr %v10, align 4
  %v12 = mul nsw i64 %v9, 8
  %v13 = getelementptr inbounds float, ptr %v3, i64 %v12
  %v14 = load <8 x float>, ptr %v13, align 4
  %v15 = insertelement <8 x float> poison, float %v11, i64 0
  %v16 = shufflevector <8 x float> %v15, <8 x float> poison, <8 x i32> zeroinitializer
  %v17 = fmul contract <8 x float> %v16, %v14
  %v18 = load <8 x float>, ptr %v6, align 64
  %v19 = fadd contract <8 x float> %v17, %v18
  store <8 x float> %v19, ptr %v6, align 64
  %v20 = add nsw i64 %v9, 1
  %v21 = icmp slt i64 %v20, 3
  br i1 %v21, label %k.7, label %k.end.8
k.end.8:
  %v22 = load <8 x float>, ptr %v6, align 64
  store <8 x float> %v22, ptr %v5, align 4
  ret void
}
